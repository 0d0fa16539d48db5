"""A receiver of alerts for tests: a small HTTP server that takes apprise's JSON messages, or is down."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Receiver:
    """Listens on a port of its own until `stop`; `start` after that takes the same port again."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.refuses: tuple[str, ...] = ()
        """Messages with one of these texts in the title are answered with 400."""
        self.status = 200
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        """As `LOFI_ALERT_URLS` takes it, with a secret."""
        return f"json://127.0.0.1:{self.port}/hooks/s3cr3tpath"

    @property
    def titles(self) -> list[str]:
        """Titles in the order of arrival."""
        return [message["title"] for message in self.received]

    def start(self) -> None:
        """Be up."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                refused = any(text in message["title"] for text in receiver.refuses)
                status = 400 if refused else receiver.status
                if status == 200:
                    receiver.received.append(message)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """Be down: nothing listens."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
