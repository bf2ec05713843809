"""The values of `diffusionad score` that are more than a word: wrong ones are wrong usage."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from diffusionad_client.scoring.path_fields import FieldRule
    from diffusionad_client.scoring.tables import Format


def parsed(parse: Callable[[str], Any], value: str) -> Any:
    """Take a value of the command line, or say that it is wrong usage."""
    from diffusionad_client.errors import ArgumentError

    try:
        return parse(value)
    except ArgumentError as exc:
        raise click.UsageError(str(exc)) from exc


def read_formats(text: str) -> tuple[Format, ...]:
    """Read the value of --format."""
    from diffusionad_client.scoring.tables import Format, check_can_write

    try:
        formats = tuple(Format(name.strip()) for name in text.split(","))
    except ValueError as exc:
        known = ", ".join(form.value for form in Format)
        raise click.UsageError(f"--format {text!r}: not a list of {known}") from exc
    check_can_write(formats)
    return formats


def read_fields(constants: tuple[str, ...], pattern: str | None) -> FieldRule:
    """Read the values of --field and --path-pattern."""
    from diffusionad_client.scoring.path_fields import FieldRule, PathPattern, check_field_name

    fields = {}
    for text in constants:
        name, is_given, value = text.partition("=")
        if not is_given:
            raise click.UsageError(f"--field {text!r}: give NAME=VALUE, such as lot=4711")
        fields[parsed(check_field_name, name)] = value
    return FieldRule(fields, None if pattern is None else parsed(PathPattern, pattern))
