"""Images in .zip and .tar archives, read where they lie: nothing is unpacked.

A compressed tar can only be read from its start. So its images are read as they
are drawn from it, by one thread, and are not counted before.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from glob import glob, has_magic
from pathlib import Path

from diffusionad_client import folders, regular_files
from diffusionad_client.errors import ImageError, SourceError
from diffusionad_client.folders import LeftOut, Reason
from diffusionad_client.scoring.seen import Seen
from diffusionad_client.scoring.sources import SourceImage, nothing_found

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_ENDINGS = (".zip", ".tar", *_COMPRESSED)
_UNREADABLE = (".tar.zst", ".tzst", ".7z", ".rar")
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError, ValueError,
    NotImplementedError,
)  # fmt: skip

Member = tuple[str, Callable[[], bytes]]  # its name there, and how to read it


def named(sources: Sequence[str]) -> list[str]:
    """Give those sources that are archives, or patterns of them. Raises `SourceError`."""
    for source in sources:
        if source.lower().endswith(_UNREADABLE) and os.path.isfile(source):
            raise SourceError(
                f"{source}: such archives are not read; pack the images into a .zip or a .tar, or "
                "unpack them"
            )
    return [
        source
        for source in sources
        if source.lower().endswith(_ENDINGS) and (os.path.isfile(source) or has_magic(source))
    ]


def find(sources: Sequence[str]) -> ArchivedImages:
    """Open archives and count their images. Raises `SourceError`."""
    paths: dict[str, None] = {}
    for source in sources:
        found = [source] if os.path.isfile(source) else sorted(glob(source, recursive=True))
        if not found:
            raise SourceError(f"{source}: no file has such a name")
        paths.update(dict.fromkeys(map(os.path.abspath, found)))
    left_out = LeftOut()
    images = ArchivedImages(tuple(paths), left_out)
    if any(map(_is_compressed, paths)):  # counting would take half as long as all
        if next(images.members(left_out), None) is None:
            raise nothing_found(sources, left_out)
        return images
    count = sum(1 for _ in images.members(left_out))
    if not count:
        raise nothing_found(sources, left_out)
    return ArchivedImages(tuple(paths), left_out, count)


@dataclass(frozen=True)
class ArchivedImages:
    """The images of archives, in their order there. A `Source`.

    Of several archives, the names begin with those of the archives.
    """

    archives: tuple[str, ...]
    left_out: LeftOut = field(default_factory=LeftOut)
    count: int | None = None

    @property
    def root(self) -> str:
        """The archive, or the folder that all have in common."""
        one = len(self.archives) == 1
        return (
            self.archives[0]
            if one
            else os.path.commonpath(list(map(os.path.dirname, self.archives)))
        )

    def __iter__(self) -> Iterator[SourceImage]:
        return self.members(LeftOut())

    def members(self, left_out: LeftOut) -> Iterator[SourceImage]:
        """Go through the images; what is none is added to `left_out`."""
        with closing(Seen()) as seen:
            for archive in self.archives:
                inside = os.path.relpath(archive, self.root)
                prefix = "" if len(self.archives) == 1 else Path(inside).as_posix() + "/"
                for name, read in _members(archive):
                    reason = reason_to_leave_out(name)
                    if reason is None and not seen.add(prefix + name):
                        reason = Reason.TWICE
                    if reason is None:
                        yield SourceImage(prefix + name, partial(_read, prefix + name, read))
                    else:
                        left_out.add(reason, prefix + name)


def reason_to_leave_out(name: str) -> Reason | None:
    """Tell why a path in an archive or bucket is no image to score; None if it is one."""
    parts = name.split("/")
    is_strange = "\\" in name or "\0" in name or ":" in parts[0]  # a path, elsewhere
    if is_strange or any(part in ("", ".", "..") for part in parts):
        return Reason.OUTSIDE
    if any(part.lower() in folders.OF_THE_SYSTEM for part in parts[:-1]):
        return Reason.SYSTEM
    if any(map(folders.is_hidden, parts)):
        return Reason.HIDDEN
    return None if folders.is_image(parts[-1]) else Reason.NO_IMAGE


def _members(archive: str) -> Iterator[Member]:
    try:
        yield from (_zipped if archive.lower().endswith(".zip") else _tarred)(archive)
    except _DAMAGED as exc:
        raise SourceError(f"{archive}: cannot be read as an archive: {exc}") from exc


def _zipped(archive: str) -> Iterator[Member]:
    regular_files.open_regular(archive).close()  # nothing else is waited for
    # It lives as long as one of its images is to be read; threads may share it.
    file = zipfile.ZipFile(archive)
    for info in file.infolist():
        if not info.is_dir():
            yield info.filename, partial(_unzipped, file, info)


def _unzipped(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    _check_size(info.file_size)
    with file.open(info) as member:
        return member.read()


def _is_compressed(archive: str) -> bool:
    return archive.lower().endswith(_COMPRESSED)


def _tarred(archive: str) -> Iterator[Member]:
    is_compressed = _is_compressed(archive)
    with (
        regular_files.open_regular(archive) as raw,
        tarfile.open(fileobj=raw, mode="r|*" if is_compressed else "r:") as file,
    ):
        while (member := file.next()) is not None:
            file.members = []  # type: ignore[attr-defined]  # or all would stay in memory
            if member.isdir():
                continue
            name = member.name.removeprefix("./")
            if is_compressed:
                wanted = reason_to_leave_out(name) is None
                yield name, _Drawn.of(file, member) if wanted else bytes
            else:
                place = (member.offset_data, member.size)
                yield name, partial(_untarred, archive, *place, _is_whole(member))


@dataclass(frozen=True)
class _Drawn:
    """The content of an image, read when its turn in the archive came, or why it was not."""

    content: bytes = b""
    error: Exception | None = None

    @classmethod
    def of(cls, file: tarfile.TarFile, member: tarfile.TarInfo) -> _Drawn:
        try:
            _check_readable(member.size, _is_whole(member))
            found = file.extractfile(member)
            assert found is not None  # of a whole file
            return cls(found.read())
        except ValueError as exc:  # others are the archive's
            return cls(error=exc)

    def __reduce__(self) -> str:  # all of the archive would lie in the memory of a cluster
        raise TypeError("a compressed tar can only be read from its start")

    def __call__(self) -> bytes:
        if self.error is not None:
            raise self.error
        return self.content


def _untarred(archive: str, begins: int, size: int, is_whole: bool) -> bytes:
    _check_readable(size, is_whole)
    with regular_files.open_regular(archive) as file:
        file.seek(begins)
        content = file.read(size)
    if len(content) < size:
        raise EOFError("the archive ends in it")
    return content


def _is_whole(member: tarfile.TarInfo) -> bool:
    return member.isreg() and not member.issparse()


def _check_readable(size: int, is_whole: bool) -> None:
    if not is_whole:
        raise ValueError("a link or a device, or with holes, and only whole files are read")
    _check_size(size)


def _check_size(size: int) -> None:
    if size > regular_files.MOST_BYTES:
        raise ValueError(f"{size} bytes, which no image has")


def _read(name: str, read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except _DAMAGED as exc:
        raise ImageError(f"{name}: cannot be read from its archive: {exc}") from exc
