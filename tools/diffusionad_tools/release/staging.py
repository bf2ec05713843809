"""One writer at a time, and a place beside the repository for what is not ready to be seen."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusionad_client.files import refusal
from diffusionad_tools.errors import ReleaseError

WAIT_S = 60.0  # for another writer; an `add` whose models load slowly takes longer
_LOOK_EVERY_S = 0.1
_CHANGE = "change"
# What may lie in the folder that a writer locks: this version's one folder, and those of before.
_WRITTEN = {_CHANGE, "candidate", "pruned", "both", "new", "ensembles"}


@contextmanager
def staging(repository: Path, *, wait: float = WAIT_S) -> Iterator[Path]:
    """Lock a repository for one writer; yield a folder on its file system for what is not ready.

    The folder lies beside the repository, because Triton takes every folder
    inside it for a model. What a killed writer left there is removed, and nothing
    else. Raises `ReleaseError` if another writer is not done after `wait`
    seconds, if something lies there that no writer left, or if the file system
    refuses something.
    """
    repository = repository.resolve()
    folder = repository.with_name(f".{repository.name}.writing")
    try:
        handle = _lock(folder, repository, wait)
        try:
            try:
                _check_file_system(repository, folder)
                _clear(folder)
                os.mkdir(folder / _CHANGE)
                yield folder / _CHANGE
            finally:
                _remove(folder)
        finally:
            os.close(handle)
    except OSError as exc:
        where = Path(exc.filename or repository)
        raise ReleaseError(
            f"{where}: {refusal(exc, where)}. No release in {repository} was harmed; put that "
            "right and run the command again"
        ) from exc


@contextmanager
def changing(repository: Path, *, wait: float = WAIT_S) -> Iterator[Path]:
    """`staging` for a repository that must be there already."""
    if not repository.is_dir():
        raise ReleaseError(
            f"{repository}: no such model repository; "
            f"`diffusionad release add BUNDLE --repository {repository}` makes one"
        )
    with staging(repository, wait=wait) as folder:
        yield folder


def _lock(folder: Path, repository: Path, wait: float) -> int:
    """Open and lock the folder, which is made if need be; return the handle that holds the lock."""
    end = time.monotonic() + wait
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        if _is_ours(handle, folder):
            return handle
        os.close(handle)
        if time.monotonic() >= end:
            raise ReleaseError(
                f"another `diffusionad release` has been writing to {repository} for {wait:g} s; "
                "try again when it is done, or give it longer with --wait"
            )
        time.sleep(_LOOK_EVERY_S)


def _is_ours(handle: int, folder: Path) -> bool:
    """Try to lock; a folder that its last writer removed as it finished is nobody's."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle), folder.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _check_file_system(repository: Path, folder: Path) -> None:
    if repository.exists() and repository.stat().st_dev != folder.stat().st_dev:
        raise ReleaseError(
            f"{repository} is a mount point; files cannot be renamed into it from beside it. "
            f"Give a folder inside it, such as {repository / 'models'}"
        )


def _clear(folder: Path) -> None:
    """Remove what a killed writer left."""
    strange = sorted(child.name for child in folder.iterdir() if child.name not in _WRITTEN)
    if strange:
        raise ReleaseError(
            f"{folder} holds {', '.join(strange)}, which no `diffusionad release` wrote; it is "
            "where unfinished releases lie, so move that away. Nothing was changed"
        )
    for child in folder.iterdir():
        shutil.rmtree(child)


def _remove(folder: Path) -> None:
    """Remove the folder and what is ours in it; what somebody else has put there stays."""
    for name in _WRITTEN:
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    if not any(folder.iterdir()):
        folder.rmdir()
