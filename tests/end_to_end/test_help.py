"""What `--help` prints, of every command of every distribution."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from diffusionad_client import cli
from diffusionad_client.cli import main

OPEN = {"accept", "reject", "pixel"}  # numbers whose range is the metadata's, which says why


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("command", list(commands(main)), ids=" ".join)
def test_help_is_laid_out_and_its_examples_keep_their_lines(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0, result.output
    assert "\\b" not in result.output  # of a raw docstring, which click does not understand
    for line in result.output.splitlines():
        assert line.count("diffusionad " + command[0]) <= 1  # two examples run together


@pytest.mark.parametrize("name", list(cli._KNOWN))
def test_the_line_that_stands_for_a_command_is_the_first_of_its_help(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert cli._KNOWN[name].summary == command.get_short_help_str(limit=1000)


def test_every_installed_command_has_a_line_that_stands_for_it() -> None:
    assert set(main.list_commands(click.Context(main))) == set(cli._KNOWN)


@pytest.mark.parametrize("command", list(commands(main)), ids=" ".join)
def test_no_number_of_an_option_may_be_endless_or_none(command: tuple[str, ...]) -> None:
    group: click.Command = main
    for name in command:
        assert isinstance(group, click.Group)
        group = group.get_command(click.Context(group), name) or group
    for parameter in group.params:
        if parameter.type.name.startswith("float") and parameter.name not in OPEN:
            for value in ("nan", "inf", "-inf"):
                with pytest.raises(click.BadParameter):
                    parameter.type.convert(value, parameter, None)
