"""Folders that a run writes its results to: whose they are, who writes there, when they change.

    OUTPUT/
      results.jsonl, heatmaps/    whole results; such names are what a `Kind` of run writes
      results.jsonl.part, ...     the same names while a run is under way
      .diffusionad/
        kind                      which kind of run the names belong to
        lock                      held by the run that writes, until it ends, however it ends
        holder.json               who that is
        publish.json              there only while new results take the place of earlier ones
        earlier/                  the earlier ones, on their way out

A folder that holds nothing is free. One that holds what a run of ours wrote is
ours, and the names of its kind in it are ours to replace; whatever else lies
there is never touched. All other folders are refused. Hidden files, and those
that operating systems leave behind, count as nothing and are never touched.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path

from diffusionad_client.errors import OutputError
from diffusionad_client.files import PART, output_errors, publish, write_aside

_HIDDEN = ".diffusionad"
_KIND, _LOCK, _SOFT_LOCK, _HOLDER = "kind", "lock", "lock.soft", "holder.json"
_PUBLISH, _EARLIER = "publish.json", "earlier"

# What file systems of networks and of buckets say that have no locks.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)

# What operating systems and file servers put into folders by themselves; hidden files besides.
_LITTER = frozenset({"thumbs.db", "desktop.ini", "lost+found", "@eadir", "$recycle.bin"})
_SHOWN = 3  # names that a refusal lists


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What one kind of run writes into its folder, and by what it is known."""

    name: str  # marks the folder: "score"
    content: str  # what messages call it: "the results of an earlier run"
    entries: tuple[str, ...]  # files and folders, by the names that they have when they are whole
    proofs: tuple[str, ...]  # of those, each tells that a folder is of this kind
    # Folder -> patterns of the files in it, at any depth. A folder of ours that holds
    # another file is not replaced: someone has put it there.
    inside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # Names the files in those folders, if whole results can tell; None if they cannot.
    named: Callable[[Path], AbstractSet[str] | None] = lambda folder: None

    @property
    def names(self) -> frozenset[str]:
        """All names that runs of this kind may leave in a folder."""
        return frozenset(entry + suffix for entry in self.entries for suffix in ("", PART))


@dataclass(frozen=True)
class OutputFolder:
    """A folder that this run holds. Other runs are kept out until the run ends."""

    path: Path
    kind: Kind

    def part(self, entry: str) -> Path:
        """Where to write an entry of the kind until it is published."""
        if entry not in self.kind.entries:
            raise ValueError(f"{entry!r} is none of the entries of {self.kind.name}")
        return self.path / (entry + PART)

    def whole(self, entry: str) -> Path:
        """Where an entry of whole results is."""
        return self.part(entry).with_name(entry)

    def own(self, name: str) -> Path:
        """Where to keep what is nobody's but the runs' own, beside the lock."""
        return self.path / _HIDDEN / name

    def discard_parts(self) -> None:
        """Remove what a run that was killed left unfinished."""
        with output_errors(self.path):
            for entry in self.kind.entries:
                _remove(self.part(entry))

    def publish(self, *, keep_others: bool = False) -> None:
        """Put all parts in the place of the earlier results, as one change.

        With `keep_others` an entry of those that has no part stays as it is.

        What happens once the intention is on the disk is done to its end: if
        not by this process, then by the next that opens the folder here.
        """
        with output_errors(self.path):
            new = [entry for entry in self.kind.entries if self.part(entry).exists()]
            for entry in new:
                if self.part(entry).is_file():
                    publish(self.part(entry), self.part(entry))  # to be safely on the disk
            intention = {"new": new, "all": new if keep_others else self.kind.entries}
            write_aside(self.path / _HIDDEN / _PUBLISH, json.dumps(intention).encode())
            _complete(self.path)


def check_claim(folder: Path, kind: Kind, *, overwrite: bool) -> None:
    """Raise the `OutputError` that `claimed` would raise as the folder stands now."""
    with output_errors(folder):
        _check(folder, kind, overwrite)
        _check_inside(folder, kind)
        if (folder / _HIDDEN / _LOCK).exists():
            with _lock(folder):
                pass


@contextmanager
def claimed(
    folder: Path, kind: Kind, *, overwrite: bool = False, keep_parts: bool = False
) -> Iterator[OutputFolder]:
    """Take a folder for a run, and hold it for as long as the context lasts.

    Earlier results stay as they are until `OutputFolder.publish`. What a run
    that was killed left unfinished is removed, unless `keep_parts` says that
    this run goes on with it. Raises `OutputError`: another run holds the
    folder, it holds something that no run of ours wrote, or earlier results
    that may not be overwritten.
    """
    with ExitStack() as stack:
        with output_errors(folder):
            _check(folder, kind, overwrite)
            (folder / _HIDDEN).mkdir(parents=True, exist_ok=True)
            stack.enter_context(_lock(folder))
            _complete(folder)
            _check(folder, kind, overwrite)  # another run may have come and gone
            _check_inside(folder, kind)
            stack.callback((folder / _HIDDEN / _HOLDER).unlink, missing_ok=True)
            write_aside(folder / _HIDDEN / _KIND, f"{kind.name}\n".encode())
            write_aside(folder / _HIDDEN / _HOLDER, json.dumps(_describe_us()).encode())
            if not keep_parts:
                for entry in kind.entries:
                    _remove(folder / (entry + PART))
        yield OutputFolder(folder, kind)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder of results while something is added to it."""
    with ExitStack() as stack:
        with output_errors(folder):
            (folder / _HIDDEN).mkdir(exist_ok=True)
            stack.enter_context(_lock(folder))
            _complete(folder)
        yield


def settle(folder: Path) -> None:
    """Finish the change of a folder's results that a killed run had begun; for those who read it.

    Raises `OutputError` if a run is changing them at this moment, or they cannot be changed.
    """
    with output_errors(folder):
        if (folder / _HIDDEN / _PUBLISH).exists():
            with _lock(folder):
                _complete(folder)


def _check(folder: Path, kind: Kind, overwrite: bool) -> None:
    """Refuse a folder that is not ours to write to, before anything is made in it."""
    if "\0" in str(folder):
        raise OutputError(f"{str(folder)!r}: a zero byte, which no path can hold")
    if not folder.exists():
        return
    content = sorted(name for name in os.listdir(folder) if not _is_litter(name))
    marked = _kind_of(folder)
    if content and marked not in (None, kind.name):
        raise OutputError(
            f"{folder}: belongs to `diffusionad {marked}`; choose another folder for "
            f"`diffusionad {kind.name}`"
        )
    proven = any(proof + suffix in content for proof in kind.proofs for suffix in ("", PART))
    foreign = [name for name in content if marked is None or name not in kind.names]
    if foreign and not proven:
        raise _refusal(folder, kind, foreign)
    earlier = [name for name in content if name in kind.names]
    if earlier and not overwrite:
        raise OutputError(
            f"{folder}: holds {kind.content} ({earlier[0]}); "
            "choose another folder, or replace them with --overwrite"
        )


def _check_inside(folder: Path, kind: Kind) -> None:
    """Refuse to replace our own folders where someone has put something into them."""
    whole = [entry for entry in kind.inside if (folder / entry).is_dir()]
    unfinished = [entry + PART for entry in kind.inside if (folder / (entry + PART)).is_dir()]
    named = kind.named(folder) if whole else None
    ours = None if named is None else {_normal(name) for name in named}
    strangers = []
    for name in (*whole, *unfinished):
        patterns = kind.inside[name.removesuffix(PART)]
        for path in _files(folder / name):
            relative = Path(os.path.relpath(path, folder)).as_posix()
            if name in whole and ours is not None:
                known = _normal(relative) in ours
            else:
                known = any(fnmatch(path, pattern) for pattern in patterns)
            if not known:
                strangers.append(relative)
    if strangers:
        raise _refusal(folder, kind, sorted(strangers))


def _files(top: Path) -> Iterator[str]:
    for parent, _, files in os.walk(top):
        yield from (os.path.join(parent, name) for name in files if not _is_litter(name))


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # some file systems of macOS spell names their way


def _refusal(folder: Path, kind: Kind, foreign: list[str]) -> OutputError:
    shown = ", ".join(foreign[:_SHOWN])
    more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
    return OutputError(
        f"{folder}: holds {shown}{more}, which no `diffusionad {kind.name}` wrote; "
        f"move that away, or choose a new or empty folder, such as {folder / kind.name.split()[-1]}"
    )


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _kind_of(folder: Path) -> str | None:
    try:
        return (folder / _HIDDEN / _KIND).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return None


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system frees when the process ends, however it ends."""
    from filelock import FileLock, SoftFileLock, Timeout  # takes its time, and writers alone wait

    lock: FileLock | SoftFileLock = FileLock(folder / _HIDDEN / _LOCK, timeout=0)
    try:
        try:
            lock.acquire()
        except (OSError, NotImplementedError) as exc:
            if isinstance(exc, OSError) and exc.errno not in _NO_LOCKS:
                raise
            # A file that is there instead, which a killed run leaves behind where its
            # process cannot be asked for: on another host.
            lock = SoftFileLock(folder / _HIDDEN / _SOFT_LOCK, timeout=0)
            lock.acquire()
    except Timeout as exc:
        raise OutputError(
            f"{folder}: another run is writing there{_describe_holder(folder)}; "
            "wait for it to end, or choose another folder"
        ) from exc
    try:
        yield
    finally:
        lock.release()


def _describe_us() -> dict[str, object]:
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since}


def _describe_holder(folder: Path) -> str:
    """Say who holds the lock; nothing if it was taken only just now."""
    try:
        holder = json.loads((folder / _HIDDEN / _HOLDER).read_bytes())
        return f": process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _complete(folder: Path) -> None:
    """Do what is left of an intention to publish, however often that was begun; hold the lock."""
    hidden = folder / _HIDDEN
    try:
        intention = json.loads((hidden / _PUBLISH).read_bytes())
    except FileNotFoundError:
        intention = {"new": [], "all": []}
    for entry in intention["all"]:
        part = folder / (entry + PART)
        is_new = entry in intention["new"]
        if is_new and not part.exists():
            continue  # it has its name already
        if (folder / entry).exists():
            _retire(folder / entry, hidden / _EARLIER)
        if is_new:
            part.replace(folder / entry)
    (hidden / _PUBLISH).unlink(missing_ok=True)
    _remove(hidden / _EARLIER)


def _retire(path: Path, earlier: Path) -> None:
    earlier.mkdir(exist_ok=True)
    _remove(earlier / path.name)
    path.replace(earlier / path.name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
