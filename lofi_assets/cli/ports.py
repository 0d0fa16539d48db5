"""A port of this machine that a command is about to listen on."""

import contextlib
import socket

import click

HOST = "127.0.0.1"


def require_free(port: int, *, option: str) -> None:
    """Refuse a port that somebody listens on, naming the process if it can be seen.

    Raises:
        click.ClickException: what to do instead, with the command's own option.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            told = f"port {port} cannot be used ({error.strerror}{_listener(port)})"
            raise click.ClickException(f"{told}; end what uses it, or choose another port with {option}") from error


def _listener(port: int) -> str:
    import psutil

    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp4"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f": process {connection.pid}, {psutil.Process(connection.pid).name()}"
    return ""
