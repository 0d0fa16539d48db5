"""What the README tells people to type exists."""

import re
import shlex
from pathlib import Path

import click
import pytest

from lofi_assets.cli.main import main

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
TYPED = [line.strip().partition("#")[0] for line in BLOCKS.splitlines() if line.strip().startswith("lofi ")]
TYPED += [text for text in re.findall(r"`(lofi [^`|]+)`", README) if "\\|" not in text]


@pytest.mark.parametrize("line", TYPED)
def test_every_command_of_the_readme_exists_with_its_options(line: str) -> None:
    _, *words = shlex.split(line)
    command: click.Command = main
    while isinstance(command, click.Group) and words:
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known, line


def test_the_day_of_a_curator_is_told_with_the_commands_that_it_takes() -> None:
    commands = {" ".join(line.split()[1:3]) for line in TYPED}
    assert {"sources add", "sources verify", "review list", "review accept", "dataset list"} <= commands
