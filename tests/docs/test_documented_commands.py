"""Every command, option and setting that the documents name exists.

Read are README, CONTRIBUTING and docs/*.md, not the decisions: those tell what was decided at their
time. A command in a fenced shell block is parsed by click as it stands; one inside a sentence often
has placeholders, so there only its name and its options count.
"""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from diffusionad_client.cli import main
from diffusionad_training.config.presets import PRESETS
from diffusionad_training.config.settings import values

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
SOURCES = [
    path
    for distribution in ("client", "training", "tools")
    for path in sorted((ROOT / distribution).rglob("*.py"))
]

# Options of other programs that a sentence names without naming the program.
FOREIGN = {
    "tritonserver": {
        "--allow-client-shm", "--grpc-restricted-protocol", "--http-restricted-api",
        "--exit-timeout-secs", "--grpc-root-cert", "--grpc-server-cert", "--grpc-server-key",
        "--grpc-use-ssl", "--grpc-use-ssl-mutual", "--load-model", "--model-control-mode",
        "--model-repository", "--strict-readiness",
    },
    "helm": {"--values"},
    "buildah": {"--format"},
    "docker": {"--file", "--gpus", "--shm-size"},
    "curl": {"--data-binary", "--header"},
}  # fmt: skip

LONGEST_CELL = 30  # words


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


COMMANDS = list(commands(main))
TOP = set(main.list_commands(click.Context(main)))


@cache
def resolve(path: tuple[str, ...]) -> click.Command:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    return command


@cache
def options_of(path: tuple[str, ...]) -> frozenset[str]:
    context = click.Context(resolve(path), info_name=path[-1])
    return frozenset(
        spelling
        for parameter in resolve(path).get_params(context)
        for spelling in (*parameter.opts, *parameter.secondary_opts)
    )


def fenced(text: str) -> Iterator[str]:
    """Yield the command lines of the shell blocks, those that go on joined."""
    for block in re.findall(r"^ *```(?:sh|console)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.strip().removeprefix("$ ")


def inline(text: str) -> Iterator[str]:
    without_blocks = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`([^`]+)`", without_blocks):
        yield " ".join(span.split())


def invocations(line: str) -> Iterator[list[str]]:
    """Yield the words of each `diffusionad` command of a line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("|;&"):
            if words[:1] == ["diffusionad"]:
                yield words[1:]
            words = []
        else:
            words.append(word)


def named_command(words: list[str]) -> tuple[str, ...] | None:
    """Find the command that words begin with; `add` alone is `release add`."""
    for length in (2, 1):
        start = tuple(words[:length])
        if start in COMMANDS or (length == 1 and start and start[0] in TOP):
            return start
    return next((path for path in COMMANDS if len(path) == 2 and [path[1]] == words[:1]), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_click_takes_every_command_of_a_shell_block(page: Path) -> None:
    for line in fenced(page.read_text(encoding="utf-8")):
        if "diffusionad" not in line.split():
            continue
        for words in invocations(line.replace("[--json]", "--json")):
            path = named_command(words)
            assert path is not None, f"no such command: {line}"
            command = resolve(path)
            context = click.Context(command, info_name=path[-1])
            try:
                given, _, _ = command.make_parser(context).parse_args(words[len(path) :])
            except click.UsageError as exc:
                pytest.fail(f"{line}: {exc.format_message()}")
            for parameter in command.get_params(context):
                value = given.get(parameter.name or "")
                if isinstance(parameter.type, click.Choice) and isinstance(value, str):
                    parameter.type.convert(value, parameter, context)
                if parameter.required:
                    assert value, f"{line}: {parameter.name} is missing"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_option_named_in_a_sentence_exists(page: Path) -> None:
    everywhere = {option for path in COMMANDS for option in options_of(path)}
    everywhere |= {option for options in FOREIGN.values() for option in options}
    for span in inline(page.read_text(encoding="utf-8")):
        words = span.removeprefix("diffusionad ").split()
        if words[0] in FOREIGN:
            continue
        options = {word.strip("[]").split("=")[0] for word in words if word.startswith("--")}
        path = named_command(words)
        if span.startswith("diffusionad "):
            assert path is not None, f"no such command: {span}"
        known = everywhere if path is None else options_of(path)
        assert options <= known, f"`{span}`: unknown {options - known}"


def test_every_command_that_a_message_or_docstring_names_exists() -> None:
    for source in SOURCES:
        for span in re.findall(r"`diffusionad ([a-z][^`\n]*)`", source.read_text(encoding="utf-8")):
            words = span.split()
            if "{" in words[0]:
                continue
            path = named_command(words)
            assert path is not None, f"{source}: no such command: {span}"
            options = {word.split("=")[0] for word in words if word.startswith("--")}
            if isinstance(resolve(path), click.Group):
                continue
            assert options <= options_of(path), f"{source}: `{span}`"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_setting_that_is_set_exists(page: Path) -> None:
    known = set(values(PRESETS["paper"]))
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for setting in re.findall(r"--set ([a-z_.]+)", text):
        assert setting in known, f"--set {setting}"


def test_every_command_has_a_row_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("| command |") :].split("\n\n")[0]
    rows = {tuple(name.split()) for row in table.splitlines() for name in first_cell(row)}
    assert rows == set(COMMANDS)


def first_cell(row: str) -> list[str]:
    return re.findall(r"`([^`]+)`", row.split("|")[1])


def test_a_table_of_the_readme_has_short_cells() -> None:
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        for cell in line.split("|")[1:-1] if line.startswith("|") else []:
            assert len(cell.split()) <= LONGEST_CELL, cell


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_make_target_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in (*fenced(text), *inline(text)):
        if line.startswith("make "):
            named = re.split(r"#|&&", line)[0].split()[1:]
            assert {name for name in named if "=" not in name} <= targets, line
