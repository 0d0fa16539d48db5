"""`lofi inspect`: what the audio gates would say of files, without a library around them."""

import contextlib
import json
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lofi_assets.tracks.inspect_file import Inspection


@click.command()
@click.argument("files", nargs=-1, type=click.UNPROCESSED, metavar="FILE...")
@click.option("--full", is_flag=True, help="Also encode to a temporary MP3 and verify it: every gate of one track.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; default from the profile.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0.1), help="Seconds per file; default from profile.")
@click.option("--memory", "memory_gb", type=click.FloatRange(min=0.3), help="GB per worker; default from the profile.")
def inspect(
    files: tuple[str, ...], full: bool, workers: int | None, timeout_s: float | None, memory_gb: float | None
) -> None:
    """Judge audio files, and all files below folders: one JSON object per file on a line of its own.

    Keys: path, verdict (accepted or rejected), rule (the gate that was broken), reason, measures. Lines come as files
    are done. Nothing is written to the library. Exits 0 when every file got its line, whatever the verdicts.
    """
    from lofi_assets.profiles import load_profile
    from lofi_assets.workers.child_process import without_interrupts

    if not files:
        click.echo("no files given; name audio files or folders", err=True)
    settings = load_profile().audio
    inspections = _inspections(
        files,
        full=full,
        workers=workers or settings.workers or os.cpu_count() or 1,
        timeout_s=timeout_s or settings.timeout_s,
        memory_gb=memory_gb or settings.memory_gb,
    )
    try:
        # Closed here and not at exit, when what the workers share is gone before they are.
        with contextlib.closing(inspections):
            for inspection in inspections:
                # ASCII only: names may hold newlines, control characters, and bytes that are no text.
                line = json.dumps(inspection.as_json(), ensure_ascii=True, allow_nan=False)
                with without_interrupts():
                    # An interrupt inside a write that waits for its reader would leave half a line.
                    click.echo(line)
    except KeyboardInterrupt:
        click.echo("interrupted; the lines above are complete", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the lines has enough of them; closing stdout again at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _inspections(
    files: Sequence[str], *, full: bool, workers: int, timeout_s: float, memory_gb: float
) -> Generator["Inspection", None, None]:
    """One per file: of folders that cannot be listed first, then of the files as they are done."""
    import tempfile
    from pathlib import Path

    from lofi_assets.constitution.gates import gates_of, load_gates
    from lofi_assets.tracks.inspect_file import Inspection, InspectJob, inspect_file
    from lofi_assets.workers.mapping import WorkerFailure
    from lofi_assets.workers.process_pool import LocalProcesses

    gates = gates_of(load_gates(), asset="processed_tracks", scope="track")
    paths: list[str] = []
    for path, fault in found(files):
        if fault:
            yield Inspection(path, rule="audio.readable", reason=fault, measures={"readable": False})
        else:
            paths.append(path)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lofi-inspect-"))) if full else None
        jobs = [InspectJob(path, gates, scratch) for path in paths]
        results = LocalProcesses(workers, timeout_s, memory_gb)(inspect_file, jobs, label="inspecting")
        stack.callback(results.close)
        for job, result in results:
            if isinstance(result, WorkerFailure):
                result = Inspection(
                    job.path, rule=result.rule, reason=result.reason, measures={"worker_survived": False}
                )
            yield result


def found(files: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(path, "") of every file given or below a folder given; (path, why) of a folder that cannot be listed.

    What is no folder is a file here, be it a device, a pipe, a link or missing: the worker says what is wrong with it.
    Below a folder links are not followed; a folder that is given may itself be one.
    """
    for path in files:
        if os.path.isdir(path):  # noqa: PTH112 (a Path raises where a name is too long or a parent forbidden)
            yield from _below(path)
        else:
            yield path, ""


def _below(folder: str) -> Iterator[tuple[str, str]]:
    pending = [folder]
    while pending:
        here = pending.pop()
        try:
            with os.scandir(here) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            yield here, f"{here!r} is a folder that cannot be listed ({error.strerror})"
            continue
        folders = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        yield from ((entry.path, "") for entry in entries if not entry.is_dir(follow_symlinks=False))
        pending += reversed(folders)
