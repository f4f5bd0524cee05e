"""Commands that the documentation shows: they parse, and what they name exists. None is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cdvae_core import experiment
from cdvae_core.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "cdvae_core" / "data" / "embedded").glob("*.md")),
    *sorted((ROOT / "checkpoints").glob("*/card.md")),
]
COMMAND = typer.main.get_command(app)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def blocks(text: str) -> Iterator[str]:
    """Lines of the code blocks, fenced or indented, with their continuations joined."""
    text = text.replace("\\\n", " ")
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip().removeprefix("$ ")


def inline(text: str) -> Iterator[str]:
    """Code within sentences, which may be broken over two lines."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose))


def shown(found: Iterator[str], start: str) -> list[str]:
    commands = (re.sub(r"^([A-Z_]+=\S+ )+", "", line) for line in found)  # VARIABLE=value before it
    return sorted({c for c in commands if c.startswith(f"{start} ") and "..." not in c})


TEXTS = [page.read_text(encoding="utf-8") for page in PAGES]
WHOLE = sorted({c for text in TEXTS for c in shown(blocks(text), "cdvae")})
MENTIONED = sorted({c for text in TEXTS for c in shown(inline(text), "cdvae")})
MAKE = sorted({c for t in TEXTS for c in shown(blocks(t), "make") + shown(inline(t), "make")})
PYTHON = sorted({c for t in TEXTS for c in shown(blocks(t), "python") + shown(inline(t), "python")})


def leaf(arguments: list[str]) -> tuple[Any, list[str]]:
    """The command that the first words name, and the words after them."""
    command = COMMAND
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        assert arguments[0] in command.commands, f"there is no {arguments[0]}"
        command, arguments = command.commands[arguments[0]], arguments[1:]
    return command, arguments


def parse(line: str) -> None:
    """Let the command's own parser have the words."""
    command, arguments = leaf(shlex.split(line, comments=True)[1:])
    if "--help" in arguments:
        return
    context = command.make_context("cdvae", arguments)
    name, overrides = context.params.get("config"), context.params.get("overrides") or []
    if name in experiment.names():
        experiment.read(name, [one for one in overrides if "KEY" not in one])


@pytest.mark.parametrize("line", WHOLE)
def test_a_shown_command_parses(line: str) -> None:
    parse(line)


@pytest.mark.parametrize("line", MENTIONED)
def test_a_mentioned_command_has_its_options(line: str) -> None:
    """In a sentence a command need not be complete."""
    command, arguments = leaf(shlex.split(line)[1:])
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word for word in arguments if re.match(r"--?[a-z]", word)} <= known


@pytest.mark.parametrize("line", MAKE)
def test_a_target_of_make_exists(line: str) -> None:
    assert shlex.split(line, comments=True)[1] in TARGETS


@pytest.mark.parametrize("line", PYTHON)
def test_a_script_exists(line: str) -> None:
    script = shlex.split(line, comments=True)[1]
    if script.endswith(".py"):
        assert (ROOT / script).is_file()


@pytest.mark.parametrize(
    "line",
    ["cdvae samples x --out y", "cdvae sample x --outt y", "cdvae sample x",
     "cdvae sample x --out y -n 0", "cdvae train mp_20 recipe.epoch=3",
     "cdvae evaluate generation x"],
)  # fmt: skip
def test_a_wrong_command_is_found_out(line: str) -> None:
    with pytest.raises(Exception):  # noqa: B017
        parse(line)


def test_there_are_commands_to_check() -> None:
    assert len(WHOLE) > 30 and len(MENTIONED) > 10 and MAKE and PYTHON
