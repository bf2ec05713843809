"""Files that are open, and bytes in any form: read from where they stand, and never for ever."""

from __future__ import annotations

import array
import asyncio
import io
import os
import socket
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from diffusionad_client import DeadlineExceededError, ImageError, file_bytes, images

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG")
    return buffer.getvalue()


FILE = png()


def archived() -> Any:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("part.png", FILE)
    return zipfile.ZipFile(whole).open("part.png")


def spooled() -> Any:
    file = tempfile.SpooledTemporaryFile()  # noqa: SIM115  # the test closes it
    file.write(FILE)
    file.seek(0)
    return file


def entry(path: Path) -> Any:
    with os.scandir(path.parent) as entries:
        return next(entries)


@pytest.mark.parametrize("timeout", [None, 10.0])
@pytest.mark.parametrize(
    "make",
    [
        lambda path: path,
        lambda path: str(path),
        lambda path: path.read_bytes(),
        lambda path: bytearray(FILE),
        lambda path: memoryview(FILE),
        lambda path: memoryview(FILE * 2)[: len(FILE)],
        lambda path: io.BytesIO(FILE),
        lambda path: path.open("rb"),
        lambda path: path.open("rb", buffering=0),
        lambda path: archived(),
        lambda path: spooled(),
        lambda path: entry(path),  # has a path, and no file
    ],
)
def test_every_form_of_a_file_is_the_same_picture(
    make: Any, timeout: float | None, tmp_path: Path
) -> None:
    (tmp_path / "part.png").write_bytes(FILE)
    source = make(tmp_path / "part.png")
    try:
        np.testing.assert_array_equal(images.load(source, timeout=timeout), RGB)
    finally:
        if hasattr(source, "close"):
            source.close()


def test_an_open_file_is_read_from_its_position_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "stream").write_bytes(b"header" + FILE)
    with (tmp_path / "stream").open("rb") as file:
        file.read(6)
        assert images.read_file(file, timeout=5) == FILE
        assert file.read() == b""
        assert not file.closed


def test_an_open_file_is_named_in_messages(tmp_path: Path) -> None:
    (tmp_path / "part.png").write_bytes(b"no image")
    with (
        (tmp_path / "part.png").open("rb") as file,
        pytest.raises(ImageError, match=r"part\.png: not an image that can be read"),
    ):
        images.load(file)


@pytest.fixture
def pipe() -> Iterator[tuple[Any, Any]]:
    ends = os.pipe()
    reading, writing = os.fdopen(ends[0], "rb"), os.fdopen(ends[1], "wb")
    yield reading, writing
    with suppress(OSError):
        writing.close()
    reading.close()


def test_a_pipe_is_read_to_its_end(pipe: tuple[Any, Any]) -> None:
    reading, writing = pipe
    threading.Thread(target=lambda: (writing.write(FILE), writing.close())).start()
    np.testing.assert_array_equal(images.load(reading, timeout=10), RGB)


@pytest.mark.parametrize("given", [b"", FILE[:20]])
def test_a_pipe_that_nobody_closes_holds_nobody(pipe: tuple[Any, Any], given: bytes) -> None:
    reading, writing = pipe
    writing.write(given)
    writing.flush()
    started = time.monotonic()
    with pytest.raises(DeadlineExceededError, match=r"open file .*: not read within 0\.05 s"):
        images.load(reading, timeout=0.05)
    assert time.monotonic() - started < 5
    writing.close()  # and the thread that waited for it ends


def test_a_socket_that_stays_silent_holds_nobody() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as file:
        with pytest.raises(DeadlineExceededError):
            images.load(file, timeout=0.05)
        theirs.close()


def test_a_file_that_never_ends_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_bytes, "MOST_BYTES", 3_000_000)
    with (
        open("/dev/zero", "rb") as endless,
        pytest.raises(ImageError, match="/dev/zero: more than the 3000000 bytes"),
    ):
        images.load(endless, timeout=30)


def test_a_file_that_never_ends_is_left_when_the_time_is_over() -> None:
    class Drip:
        reads = 0

        def read(self, size: int) -> bytes:
            self.reads += 1
            time.sleep(0.01)
            return b"x"

    drip = Drip()
    with pytest.raises(DeadlineExceededError):
        images.load(drip, timeout=0.05)
    time.sleep(0.1)
    reads = drip.reads
    time.sleep(0.1)
    assert drip.reads == reads  # the thread has ended


def test_a_path_to_a_vast_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "vast.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ImageError, match=r"vast\.png: cannot be read: 1099511627776 bytes, more"):
        images.load(tmp_path / "vast.png", timeout=10)


def closed() -> Any:
    file = io.BytesIO(FILE)
    file.close()
    return file


def released() -> memoryview:
    view = memoryview(FILE)
    view.release()
    return view


class Reads:
    """What reads as it is told."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def read(self, size: int) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Upload:
    async def read(self, size: int = -1) -> bytes:
        return FILE


class Nowhere:
    def __fspath__(self) -> str:
        raise RuntimeError("moved")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (io.StringIO("text"), r"open it with open\(\.\.\., 'rb'\)"),
        (closed(), "I/O operation on closed file"),
        (released(), "released"),
        (Upload(), "has to be awaited"),
        (Reads(None), "nothing to read yet"),
        (Reads(3), "no bytes, but 3"),
        (Reads(RuntimeError()), "RuntimeError"),
        (Reads(OSError(5, "Input/output error")), "cannot be read: Input/output error"),
        (io.BytesIO(), "the file is empty"),
        (Nowhere(), "gives no path: moved"),
        (array.array("B", FILE), "not array"),
        (io.BytesIO, "not type"),
    ],
)
@pytest.mark.parametrize("timeout", [None, 10.0])
def test_what_cannot_be_read_is_refused_with_the_reason(
    source: Any, said: str, timeout: float | None
) -> None:
    with pytest.raises(ImageError, match=said):
        images.load(source, timeout=timeout)


def test_a_stream_of_asyncio_has_to_be_awaited_by_its_owner() -> None:
    async def ask() -> None:
        stream = asyncio.StreamReader()
        with pytest.raises(ImageError, match="has to be awaited"):
            images.load(stream)  # type: ignore[arg-type]  # that it is refused is what is tested

    asyncio.run(ask())


HEADS = [
    b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM", b"II*\0", b"MM\0*", b"GIF89a",
    b"RIFF\x20\0\0\0WEBPVP8 ", b"P5 4 4 255\n", b"P7\n", b"%!PS", FILE[:30], FILE[:-20],
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(HEADS), st.binary(max_size=200))
@example(b"P5 99999999 99999999 255\n", b"")
@example(b"II*\0", b"\x08\0\0\0\xff\xff" + b"\0\1" * 90)
def test_any_bytes_are_a_picture_or_an_image_error(head: bytes, tail: bytes) -> None:
    for source in (head + tail, io.BytesIO(head + tail)):
        with suppress(ImageError):
            picture = images.load(source)
            assert (picture.dtype, picture.ndim, picture.shape[2]) == (np.uint8, 3, 3)
