"""Which lines of a results file hold: of several about one image, the last.

A file of millions is gone through without holding it: 17 bytes a line, and no line itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# How our own lines begin; all others are parsed.
_BEGINNING = re.compile(rb'\{(?:"schema": ?\d+, ?)?"image": ?"([^"\\\x80-\xff]*)"')
_BOM = b"\xef\xbb\xbf"


def superseded(lines: Iterable[bytes]) -> NDArray[np.bool_]:
    """Tell for each line whether a later one is about the same image.

    A last line that a kill tore off supersedes nothing, nor does any that is no row.
    """
    high, low = array("Q"), array("Q")
    for number, line in enumerate(lines):
        name = _image_of(line.removeprefix(_BOM) if number == 0 else line)
        # A line that names no image has a key that no name has: names hold no zero byte.
        key = digest(f"\0{number}" if name is None else name)
        high.append(key[0])
        low.append(key[1])
    first, second = np.frombuffer(high, np.uint64), np.frombuffer(low, np.uint64)
    order = np.lexsort((second, first))  # stable: equal keys stay in the order of their lines
    same_as_next = (np.diff(first[order]) == 0) & (np.diff(second[order]) == 0)
    result = np.zeros(len(order), bool)
    result[order[:-1][same_as_next]] = True
    return result


def digest(text: str) -> tuple[int, int]:
    """Make of a text two numbers of 64 bits, by which it is told from any other."""
    whole = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(whole[:8], "little"), int.from_bytes(whole[8:], "little")


def _image_of(line: bytes) -> str | None:
    beginning = _BEGINNING.match(line)
    if beginning is not None and line.endswith(b"\n"):
        return beginning.group(1).decode("ascii")
    try:
        name = json.loads(line)["image"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) else None
