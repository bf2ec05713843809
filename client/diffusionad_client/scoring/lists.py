"""Lists of images: one path or address a line, from a file or from standard input."""

from __future__ import annotations

import codecs
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from diffusionad_client import regular_files
from diffusionad_client.errors import SourceError

STDIN = Path("-")  # as a list


class ImageList:
    """The lines of a list, as often as they are asked for. Raises `SourceError` all along."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = _stdin() if path == STDIN else regular_files.open_regular(path)
        except OSError as exc:
            piped = "; a list from a pipe goes to --list -" if path.exists() else ""
            raise SourceError(f"{path}: the list cannot be read: {exc.strerror}{piped}") from exc

    def __iter__(self) -> Iterator[str]:
        """Yield the lines that are not blank, as their editor wrote them."""
        self._file.seek(0)
        is_wide = self._file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        self._file.seek(0)
        # Names that are not UTF-8 stay the bytes they are.
        encoding, errors = ("utf-16", "strict") if is_wide else ("utf-8-sig", "surrogateescape")
        text = io.TextIOWrapper(self._file, encoding=encoding, errors=errors)
        try:
            for number, line in enumerate(text, start=1):
                if "\0" in line:
                    raise SourceError(
                        f"{self.path}, line {number}: a zero byte, which no path can hold; save "
                        "the list as UTF-8"
                    )
                if line.strip():
                    yield line.strip()
        except UnicodeDecodeError as exc:
            raise SourceError(f"{self.path}: the list is damaged UTF-16: {exc}") from exc
        except OSError as exc:
            raise SourceError(f"{self.path}: the list cannot be read: {exc.strerror}") from exc
        finally:
            text.detach()  # or the file would be closed with it

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _stdin() -> BinaryIO:
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # it can be read once, and a list is twice
    shutil.copyfileobj(sys.stdin.buffer, copy)
    return copy
