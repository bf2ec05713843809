"""Fields that every record of a run gets, and those that it takes from its image's path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from diffusionad_client.errors import ArgumentError
from diffusionad_client.scoring.tables import COLUMNS

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_PLACE = re.compile(r"\{([^{}]*)\}")


def check_field_name(name: str) -> str:
    """Return a name that a field may have. Raises `ArgumentError`."""
    if not _NAME.fullmatch(name):
        raise ArgumentError(
            f"field {name!r}: a name is made of letters, digits, _ and -, and begins with a letter"
        )
    if name in COLUMNS:
        raise ArgumentError(f"field {name!r}: every record has such a column; choose another name")
    return name


class PathPattern:
    """A pattern such as '{line}/{lot}/{serial}.jpg', which an image's path ends in."""

    def __init__(self, text: str) -> None:
        """Raise `ArgumentError` for a pattern that says nothing, or the same twice."""
        names = _PLACE.findall(text)
        if not names:
            raise ArgumentError(
                f"path pattern {text!r}: it names no field; write one in braces, such as "
                "'{lot}/{serial}.jpg'"
            )
        for name in names:
            check_field_name(name)
            if names.count(name) > 1:
                raise ArgumentError(f"path pattern {text!r}: it names {name} twice")
        self.text = text
        groups = {name: f"f{number}" for number, name in enumerate(names)}  # names may hold a -
        self._names = {group: name for name, group in groups.items()}
        parts = _PLACE.split(text.strip("/"))
        escaped = [
            re.escape(part) if place % 2 == 0 else f"(?P<{groups[part]}>[^/]+?)"
            for place, part in enumerate(parts)
        ]
        self._pattern = re.compile("(?:.*/)?" + "".join(escaped), re.DOTALL)

    def fields(self, image: str) -> dict[str, str] | None:
        """Read the fields from an image's path; None if it does not end in the pattern."""
        found = self._pattern.fullmatch(image)
        if found is None:
            return None
        return {self._names[group]: value for group, value in found.groupdict().items()}


@dataclass(frozen=True)
class FieldRule:
    """Which fields the record of an image has; what its path says goes first."""

    constant: Mapping[str, str] = field(default_factory=dict)
    pattern: PathPattern | None = None

    def fields(self, image: str) -> dict[str, str]:
        """Give the fields of one image."""
        own = None if self.pattern is None else self.pattern.fields(image)
        return {**self.constant, **(own or {})}

    def check_matches(self, images: Iterable[str]) -> None:
        """Raise `ArgumentError` if the pattern fits none of the images."""
        if self.pattern is None or any(self.pattern.fields(image) for image in images):
            return
        raise ArgumentError(
            f"path pattern {self.pattern.text!r}: no image's path ends like that; it is compared "
            "with the path in the folder that is scored"
        )
