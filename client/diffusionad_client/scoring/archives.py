"""Images in .zip and .tar archives, read where they lie: nothing is unpacked."""

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

_ENDINGS = (".zip", ".tar")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError, ValueError,
    NotImplementedError,
)  # fmt: skip

Member = tuple[str, Callable[[], bytes]]  # its name there, and how to read it


def named(sources: Sequence[str]) -> list[str]:
    """Give those sources that are archives, or patterns of them. Raises `SourceError`."""
    for source in sources:
        if source.lower().endswith(_COMPRESSED) and os.path.isfile(source):
            raise SourceError(
                f"{source}: a compressed tar can only be read from its start; pack the images "
                "into a .zip or a plain .tar, or unpack them"
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


def _tarred(archive: str) -> Iterator[Member]:
    with regular_files.open_regular(archive) as raw, tarfile.open(fileobj=raw, mode="r:") as file:
        while (member := file.next()) is not None:
            file.members = []  # type: ignore[attr-defined]  # or all would stay in memory
            if not member.isdir():
                yield member.name.removeprefix("./"), partial(_untarred, archive, member)


def _untarred(archive: str, member: tarfile.TarInfo) -> bytes:
    if not member.isreg() or member.issparse():
        raise ValueError("a link or a device, or with holes, and only whole files are read")
    _check_size(member.size)
    with regular_files.open_regular(archive) as file:
        file.seek(member.offset_data)
        content = file.read(member.size)
    if len(content) < member.size:
        raise EOFError("the archive ends in it")
    return content


def _check_size(size: int) -> None:
    if size > regular_files.MOST_BYTES:
        raise ValueError(f"{size} bytes, which no image has")


def _read(name: str, read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except _DAMAGED as exc:
        raise ImageError(f"{name}: cannot be read from its archive: {exc}") from exc
