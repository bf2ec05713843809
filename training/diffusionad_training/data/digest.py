"""Tell data sets apart by what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from diffusionad_client import regular_files

READ_S = 60.0  # for one file: no drive that is there takes so long


def digest(
    root: Path, images: Iterable[Path], contents: Mapping[Path, str] = MappingProxyType({})
) -> str:
    """SHA-256 over the relative paths and contents of images, if those are not known already."""
    total = hashlib.sha256()
    for path in images:
        line = f"{path.relative_to(root).as_posix()} {contents.get(path) or content(path)}\n"
        total.update(line.encode(errors="surrogateescape"))  # names are bytes, of UTF-8 or not
    return total.hexdigest()


def content(path: Path) -> str:
    """SHA-256, in hex, of what is in a file. Raises `OSError`."""
    return hashlib.sha256(regular_files.read(path, timeout=READ_S)).hexdigest()
