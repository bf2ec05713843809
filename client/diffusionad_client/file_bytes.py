"""The bytes of an image's file, from whatever holds them: a path, bytes, or a file that is open.

A file that is open may be a pipe or a socket. So it is read in pieces, within
a time if one is given, and to no end that would fill the memory.
"""

from __future__ import annotations

import inspect
import io
import os
import time
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from diffusionad_client import regular_files
from diffusionad_client.errors import DeadlineExceededError, ImageError, shown

_PIECE = 2**20  # bytes read at once
MOST_BYTES = regular_files.MOST_BYTES


@runtime_checkable
class BinaryReader(Protocol):
    """A file that is open for reading bytes, or what reads like one."""

    def read(self, size: int, /) -> bytes:
        """Give at most `size` bytes, and none at the end."""
        ...


@dataclass(frozen=True)
class NamedBytes:
    """A file that was read already, with the name that messages call it by."""

    data: bytes
    name: str


FileSource = str | os.PathLike[str] | bytes | bytearray | memoryview | NamedBytes | BinaryReader


def holds_file(source: object) -> bool:
    """Tell whether there is an image's file behind a source, as there is none behind pixels."""
    if isinstance(source, memoryview):
        return _is_flat(source)
    if isinstance(source, (str, os.PathLike, bytes, bytearray, NamedBytes)):
        return True
    return _reader(source) is not None


def name_of(source: Any) -> str | None:
    """Name the file behind a source; None for one that has no name, such as bytes."""
    if isinstance(source, (str, os.PathLike)):
        return _path(source)
    if isinstance(source, NamedBytes):
        return source.name
    if isinstance(source, (bytes, bytearray, memoryview)):
        return None
    name = _attribute(source, "name")  # of a pipe it may be a number
    return name if isinstance(name, str) and name else None


def read(source: FileSource, *, timeout: float | None = None) -> bytes:
    """Give the bytes of an image's file as they are.

    Of paths only regular files are read. A file that is open is read from its
    position to its end. With a `timeout` in seconds nothing is waited for
    longer; what an open file had given by then is lost. Raises `ImageError` or
    `DeadlineExceededError`.
    """
    if isinstance(source, bytes):
        return source
    if isinstance(source, NamedBytes):
        return source.data
    if isinstance(source, (bytearray, memoryview)):
        return _copied(source)
    name = name_of(source) or f"the open file ({type(source).__name__})"
    try:
        if isinstance(source, (str, os.PathLike)):
            return regular_files.read(name, timeout=timeout)
        if timeout is None or type(source) is io.BytesIO:
            return _read_to_end(source, name, None)
        ends = time.monotonic() + timeout
        return regular_files.in_time(lambda: _read_to_end(source, name, ends), name, timeout)
    except TimeoutError as exc:
        raise DeadlineExceededError(
            f"{name}: {exc.strerror or 'not read in time'}; is its drive there? Allow more with "
            "timeout= or --timeout"
        ) from exc
    except OSError as exc:
        raise ImageError(f"{name}: cannot be read: {exc.strerror or exc}") from exc


def _read_to_end(file: BinaryReader, name: str, ends: float | None) -> bytes:
    """Read what is left of a file, until a point of `time.monotonic` that nobody waits beyond."""
    content = bytearray()
    while piece := _read_piece(file, name):
        content += piece
        if len(content) > MOST_BYTES:
            raise ImageError(f"{name}: more than the {MOST_BYTES} bytes that a file may have")
        if ends is not None and time.monotonic() > ends:
            raise TimeoutError
    return bytes(content)


def _read_piece(file: BinaryReader, name: str) -> bytes:
    try:
        piece: Any = file.read(_PIECE)
    except OSError:
        raise
    except Exception as exc:  # a closed file's, or whatever else reads like one
        raise ImageError(f"{name}: cannot be read: {str(exc) or type(exc).__name__}") from exc
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return bytes(piece)
    if isinstance(piece, str):
        raise ImageError(f"{name}: open for reading text; open it with open(..., 'rb')")
    if inspect.iscoroutine(piece):
        piece.close()
        raise ImageError(f"{name}: its read() has to be awaited; give the bytes that it returns")
    if piece is None:
        raise ImageError(f"{name}: there is nothing to read yet; wait for it, and give the bytes")
    raise ImageError(f"{name}: its read() gives no bytes, but {shown(piece)}")


def _copied(source: bytearray | memoryview) -> bytes:
    try:
        return bytes(source)
    except (ValueError, BufferError, NotImplementedError) as exc:  # it was released
        raise ImageError(f"the bytes of the image cannot be read: {exc}") from exc


def _is_flat(view: memoryview) -> bool:
    try:
        return view.ndim == 1 and view.itemsize == 1
    except ValueError:  # it was released, which reading it will say
        return True


def _path(source: str | os.PathLike[str]) -> str:
    if isinstance(source, str):
        return source
    try:
        return os.fsdecode(source)
    except Exception as exc:  # its own code
        raise ImageError(
            f"the {type(source).__name__} gives no path: {str(exc) or type(exc).__name__}"
        ) from exc


def _reader(source: object) -> Any:
    read = _attribute(source, "read")
    return read if callable(read) and not isinstance(source, type) else None


def _attribute(source: object, name: str) -> Any:
    try:
        return getattr(source, name, None)
    except Exception:  # a property of the object's that is broken
        return None
