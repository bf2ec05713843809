"""What a caller may give: every wrong value is an `ArgumentError` that shows it and the remedy.

Python checks no types by itself, and what a wrong one leads to, far from here,
is no error that a caller could understand or catch.
"""

from __future__ import annotations

import operator
import warnings
from typing import Literal

import numpy as np

from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.contract import Priority
from diffusionad_client.errors import ArgumentError, shown
from diffusionad_client.sdk.transports.base import Transport

# Who decodes an image's file; "auto": the server, if that saves bytes and it can.
Decode = Literal["client", "server", "auto"]
_DECODES = ("client", "server", "auto")

_LONGEST_SIDE = 2**16  # of a map that is stretched, in pixels
_MOST_PIXELS = 2**28  # of it: a gigabyte


def check_flag(name: str, value: bool) -> bool:
    """Return a flag. A text such as "no" would count as true, an array as neither."""
    if not isinstance(value, (bool, np.bool_)):
        raise ArgumentError(f"{name} is True or False, not {shown(value)}")
    return bool(value)


def check_decode(
    value: Decode | None, encoded: bool | None = None, *, stacklevel: int = 3
) -> Decode:
    """Return who decodes, "client" if nothing is said, also of what calls were once given.

    Warns of `encoded`, in the name of the caller `stacklevel` calls above this one.
    """
    if encoded is not None:
        named: Decode = "server" if check_flag("encoded", encoded) else "client"
        if value is not None:
            raise ArgumentError(
                f"decode={shown(value)} and encoded={encoded} say the same thing twice; leave out "
                "encoded"
            )
        warnings.warn(
            f"encoded={encoded} is deprecated; say decode={named!r}",
            DeprecationWarning,
            stacklevel=stacklevel,
        )
        return named
    if value is None:
        return "client"
    if not isinstance(value, str) or value not in _DECODES:
        raise ArgumentError(f"decode is 'client', 'server' or 'auto', not {shown(value)}")
    return value


def check_thresholds(value: Thresholds | None) -> Thresholds | None:
    """Return thresholds, or the absence of any."""
    if value is not None and not isinstance(value, Thresholds):
        raise ArgumentError(
            f"thresholds are given as Thresholds(accept=0.3, reject=0.5), not as {shown(value)}"
        )
    return value


def check_priority(value: Priority) -> Priority:
    """Return a priority, also one that is given by its number."""
    try:
        return Priority(operator.index(value))
    except (TypeError, ValueError) as exc:
        names = ", ".join(f"Priority.{priority.name}" for priority in Priority)
        raise ArgumentError(f"a priority is one of {names}, not {shown(value)}") from exc


def check_transport(value: Transport) -> Transport:
    """Return a way to a server, if it is one."""
    if not all(callable(getattr(value, name, None)) for name in ("config", "infer", "versions")):
        raise ArgumentError(
            f"a transport has the methods of sdk.transports.base.Transport, not as {shown(value)}"
        )
    return value


def check_map_size(height: int, width: int) -> tuple[int, int]:
    """Return the size of an image, as Python's own numbers."""
    try:
        size = operator.index(height), operator.index(width)
    except TypeError as exc:
        raise ArgumentError(
            f"an image's height and width are whole numbers, not {shown((height, width))}"
        ) from exc
    if not all(1 <= side <= _LONGEST_SIDE for side in size) or size[0] * size[1] > _MOST_PIXELS:
        raise ArgumentError(
            f"a map cannot be stretched over {shown(size[0])} x {shown(size[1])} pixels: give the "
            f"image's height and width, each of 1 to {_LONGEST_SIDE}, together at most "
            f"{_MOST_PIXELS} pixels"
        )
    return size
