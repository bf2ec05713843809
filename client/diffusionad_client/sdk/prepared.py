"""A picture on its way to a server: read once, then as its file or as the pixels of a model.

Which of the two is not known before the server has said which size the model
takes, and whether it decodes files; and it may say something else at the next
try. No server is asked here: everything is files, memory and arithmetic, so
that any driver may call it, in a thread of its own.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffusionad_client import file_bytes, image_files, images
from diffusionad_client.arrays import as_array, check_color, is_array_like
from diffusionad_client.errors import ImageError
from diffusionad_client.sdk.arguments import Decode, check_decode

_CHANNELS = 3


def prepare(
    source: images.ImageSource,
    *,
    color: images.Color = "rgb",
    decode: Decode = "client",
    timeout: float | None = None,
) -> Prepared:
    """Read an image, and decode it if that is certain to be needed.

    `timeout`, in seconds, is for reading the file. See `images.read_pixels` for
    what a source may be. Raises `ImageError`, `ArgumentError` or
    `DeadlineExceededError`.
    """
    check_color(color)
    how = check_decode(decode)
    started = time.perf_counter()
    name = None
    if how == "server" or file_bytes.holds_file(source):
        file = images.read_file(source, timeout=timeout)
        name = file_bytes.name_of(source)
        if how != "client":
            return Prepared(how, name, file=file, decode_s=time.perf_counter() - started)
        pixels: images.Picture = images.decode(file, name=name)
    else:
        pixels = images.read_pixels(source, color=color)
    return Prepared(how, name, pixels=pixels, decode_s=time.perf_counter() - started)


def held(source: images.ImageSource) -> images.ImageSource:
    """Give a source that stays as it is when its owner fills its memory with the next image.

    Cameras do so, and a stream draws on images ahead of those that it has sent.
    """
    try:
        if isinstance(source, np.ndarray):
            return source.copy()
        if isinstance(source, (bytearray, memoryview)) and file_bytes.holds_file(source):
            return file_bytes.read(source)
        if isinstance(source, memoryview) or (
            is_array_like(source) and not isinstance(source, Image.Image)
        ):
            return as_array(source).copy()
    except (ImageError, MemoryError):
        pass  # what is wrong with it is said where it is prepared
    return source


class Prepared:
    """A picture that was read. Threads may share it."""

    def __init__(
        self,
        decode: Decode,
        name: str | None,
        *,
        file: bytes | None = None,
        pixels: images.Picture | None = None,
        decode_s: float = 0.0,
    ) -> None:
        self.decode = decode
        self.name = name  # the file's, which the server does not know; None: it has none
        self.file = file  # as it is; None: there are only pixels, or only they are needed
        self.decode_s = decode_s  # spent on reading and decoding until now
        self.resize_s = 0.0  # spent on the model's size
        self._pixels = pixels
        self._fitted: tuple[tuple[int, int], images.RGBImage] | None = None

    def __repr__(self) -> str:
        of = f"a file of {len(self.file)} bytes" if self.file is not None else "pixels"
        return f"<Prepared {self.name or 'picture'}: {of}, decode={self.decode!r}>"

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width, upright; None of a file that cannot be read here."""
        if self._pixels is not None:
            pixels = self._pixels
            if isinstance(pixels, Image.Image):
                return pixels.height, pixels.width
            shape = pixels.values.shape if isinstance(pixels, images.Deep) else pixels.shape
            return shape[0], shape[1]
        return None if self.file is None else image_files.size_of(self.file)

    def goes_as_file(self, size: int, *, served_encoded: bool | None = None) -> bool:
        """Decide whether the file itself is sent to a model of that size.

        `served_encoded` says whether the server is known to decode files, or
        known not to; None if it was not asked yet. With "auto", the file goes
        if it is smaller than the pixels and nothing speaks against it.
        """
        if self.file is None or self.decode == "client":
            return False
        if self.decode == "server":
            return True
        return served_encoded is not False and len(self.file) < _CHANNELS * size * size

    def stay_here(self) -> None:
        """Hear that a server could not take the file: its pixels are sent from now on."""
        self.decode = "client"

    def pixels(self) -> images.Picture:
        """Give the pixels in the picture's own size; decode them unless that was done.

        Raises `ImageError`.
        """
        if self._pixels is None:
            assert self.file is not None
            started = time.perf_counter()
            self._pixels = images.decode(self.file, name=self.name)
            self.decode_s += time.perf_counter() - started
        return self._pixels

    def picture(self, size: int, depth: int) -> images.RGBImage:
        """Give what a model of that size takes: RGB, (size, size, 3) uint8.

        `depth` is the release's, in bits. A second try with the same of both
        costs nothing. Raises `ImageError`, also for a pixel of more bits.
        """
        fitted = self._fitted
        if fitted is None or fitted[0] != (size, depth):
            pixels = self.pixels()
            started = time.perf_counter()
            fitted = (size, depth), images.fit(pixels, size, depth)
            self.resize_s = time.perf_counter() - started
            self._fitted = fitted
        return fitted[1]

    def batch(self, size: int, depth: int) -> NDArray[np.uint8]:
        """Give the tensor IMAGE: (1, size, size, 3) uint8. See `picture`."""
        return self.picture(size, depth)[np.newaxis]

    def file_batch(self) -> NDArray[Any]:
        """Give the tensor IMAGE_BYTES: (1, 1) of the file's bytes."""
        if self.file is None:
            raise ImageError("there is no file of this picture to send, only its pixels")
        return np.array([[self.file]], np.object_)
