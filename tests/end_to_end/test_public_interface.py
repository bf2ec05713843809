"""The public API and the commands, as a text: what changes of either is seen in review.

Run this file to write `public_interface.txt` anew:

    python tests/end_to_end/test_public_interface.py
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import click

import diffusionad_client
from diffusionad_client import testing
from diffusionad_client.cli import main

GOLDEN = Path(__file__).with_name("public_interface.txt")
HOW = "python tests/end_to_end/test_public_interface.py"

OF_THE_MACHINE = {"workers"}  # options whose default depends on it


def interface() -> str:
    """Give the text: every public name with its signature, every command with its options."""
    lines = ["The public API of diffusionad_client", ""]
    for name in diffusionad_client.__all__:
        lines += api(name, getattr(diffusionad_client, name))
    lines += ["", "The public API of diffusionad_client.testing", ""]
    for name in testing.__all__:
        lines += api(name, getattr(testing, name))
    lines += ["", "The commands", ""]
    lines += commands(main, "diffusionad")
    return "\n".join(lines) + "\n"


def api(name: str, thing: Any) -> Iterator[str]:
    if issubclass(thing, Exception):
        again = "  (retryable)" if thing.retryable else ""
        yield f"{name}({thing.__mro__[1].__name__}){again}"
        return
    if issubclass(thing, Enum):
        members = ", ".join(f"{member.name}={member.value!r}" for member in thing)
        yield f"{name}: {members}"
        return
    yield f"{name}{signature(thing)}"
    for member, value in sorted(vars(thing).items()):
        if member.startswith("_"):
            continue
        function = getattr(value, "__func__", value)
        if isinstance(value, property):
            yield f"  .{member} -> {inspect.signature(value.fget).return_annotation}"  # type: ignore[arg-type]
        elif inspect.isfunction(function):
            yield f"  .{member}{signature(function)}"


def signature(thing: Any) -> str:
    return (
        str(inspect.signature(thing))
        .replace("'", "")
        .replace("(self, ", "(")
        .replace("(self)", "()")
    )


def commands(command: click.Command, path: str) -> Iterator[str]:
    yield path
    context = click.Context(command, info_name=path)
    for parameter in command.get_params(context):
        if "--help" not in parameter.opts:  # which all have; click remembers it as it was asked
            yield f"  {option(parameter, context)}"
    if isinstance(command, click.Group):
        for name in sorted(command.list_commands(context)):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, f"{path} {name}")


def option(parameter: click.Parameter, context: click.Context) -> str:
    if isinstance(parameter, click.Argument):
        return parameter.make_metavar(context)
    assert isinstance(parameter, click.Option)
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    if parameter.is_flag:
        return names
    words = [names, parameter.make_metavar(context)]
    default = parameter.to_info_dict()["default"]
    if isinstance(default, (str, int, float, Path)) and parameter.name not in OF_THE_MACHINE:
        words.append(f"[{default}]")
    if parameter.required:
        words.append("required")
    if parameter.multiple:
        words.append("repeatable")
    return " ".join(words)


def test_the_public_interface_is_the_one_that_was_agreed_on() -> None:
    wanted = GOLDEN.read_text(encoding="utf-8").splitlines()
    changes = list(difflib.unified_diff(wanted, interface().splitlines(), lineterm="", n=0))[2:]
    assert not changes, (
        "the public API or the commands changed; if that is meant, say so in the CHANGELOG and "
        f"run `{HOW}`:\n" + "\n".join(changes)
    )


if __name__ == "__main__":
    GOLDEN.write_text(interface(), encoding="utf-8")
    print(f"{GOLDEN} is written.")
