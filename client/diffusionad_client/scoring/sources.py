"""Which images to score: from files, folders, glob patterns, lists, archives and buckets.

Every image gets a name: its path relative to the folder that all sources have
in common. Names are unique, hold no "..", and name the files made of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from diffusionad_client.errors import SourceError
from diffusionad_client.folders import IMAGE_SUFFIXES, LeftOut

READ_S = 30.0  # for one file, unless the run says otherwise


@dataclass(frozen=True)
class SourceImage:
    """One image to score: its name, and how to get its file's bytes."""

    name: str  # unique in its source, with "/" between folders and no ".."
    read: Callable[[], bytes]  # raises a DiffusionADError, and never waits for ever
    etag: str | None = None  # what a store says of the content: another one has another


# Yielded by a source of images that are still to come, where none has come yet.
NONE_YET = SourceImage("", lambda: b"")


class Source(Protocol):
    """Images in an order that is the same every time. Nothing is read before it is asked for.

    One of millions of images must not make them all before the first. One
    that is never at its end yields `NONE_YET` at once instead of waiting.
    """

    @property
    def root(self) -> str:
        """Where the names begin: a folder, an archive, or the address of a bucket."""

    @property
    def count(self) -> int | None:
        """How many images there are; None if that is not known before the end."""

    def __iter__(self) -> Iterator[SourceImage]:
        """Go through the images."""


class FoundImages(Source, Protocol):
    """A source that says what it left out, as far as it has been gone through."""

    @property
    def left_out(self) -> LeftOut:
        """What is no image, by reason."""


def find_images(
    sources: Sequence[str],
    *,
    lists: Sequence[Path] = (),
    skip: Path | None = None,
    timeout: float = READ_S,
) -> FoundImages:
    """Gather the images of all sources; results in the folder `skip` (the output) are left out.

    A source is an image, a folder (searched through and through, by the rules
    of `folders`), a glob pattern such as "line1/**/*.png", a .zip or .tar of
    images, or an address such as "s3://bucket/line1". A list holds one path a
    line, relative to the working directory; "-" is standard input. Archives and
    addresses are not mixed with other sources. What is named but cannot be
    read, such as a link to nothing or a named pipe, is left to the run, which
    says so in its row. Raises `SourceError`.
    """
    from diffusionad_client.scoring import archives, local_files, remote

    far = [source for source in sources if remote.is_address(source)]
    packed = archives.named(sources)
    if far:
        _refuse_others("addresses", far, sources, lists)
        return remote.find(far, timeout)
    if packed:
        _refuse_others("archives", packed, sources, lists)
        return archives.find(packed)
    return local_files.find(sources, lists, skip, timeout)


def nothing_found(where: Sequence[object], left_out: LeftOut) -> SourceError:
    """Say that there are no images, and what there is instead."""
    others = "; ".join(left_out.described()) or "no files at all"
    return SourceError(
        f"{', '.join(map(str, where))}: no images there ({others}); images end in "
        + ", ".join(sorted(IMAGE_SUFFIXES))
    )


def _refuse_others(
    kind: str, ours: Sequence[str], sources: Sequence[str], lists: Sequence[Path]
) -> None:
    others = [source for source in sources if source not in ours]
    if others or lists:
        raise SourceError(
            f"{ours[0]}: {kind} are scored in a run of their own, not together with "
            + str([*others, *lists][0])
        )
