"""Put a candidate into a repository so that a crash at any point leaves one whole release.

Triton reads a repository when it starts. So nothing may be in it that it
cannot load, and the served ensemble must find the exact step versions that it
names. Hence the order: new step versions, which no configuration names yet;
then step configurations that serve the old and the new; then the ensemble,
which changes the release at one stroke; last, step configurations without the
old version, which only saves memory.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusionad_client import contract
from diffusionad_client.contract import Step
from diffusionad_tools.errors import ReleaseError
from diffusionad_tools.release import durable, model_config
from diffusionad_tools.release.candidate import Candidate, shared_config
from diffusionad_tools.release.repository import CONFIG_FILE, served_release

_BOTH = "old-and-new.pbtxt"


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """Lock a repository for one writer; yield a folder on its file system for what is not ready.

    The folder lies beside the repository, because Triton takes every folder
    inside it for a model. What a killed writer left there is removed.
    """
    repository = repository.resolve()
    folder = repository.with_name(f".{repository.name}.adding")
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(handle, folder, repository)
        try:
            _check_file_system(repository, folder)
            _empty(folder)
            yield folder
        finally:
            shutil.rmtree(folder)
    finally:
        os.close(handle)


def publish(candidate: Candidate, repository: Path) -> None:
    """Move a candidate into `repository`. See the module for the order.

    The caller holds `staging(repository)`, and the candidate lies in it.
    """
    category, version = candidate.metadata.category, str(candidate.version)
    served = served_release(repository, category)
    both = _write_both(candidate, repository)
    if not repository.exists():
        durable.make_folder(repository)

    for step in Step:
        model = repository / contract.step_model(category, step)
        if step in both:
            durable.move_into_place(candidate.model(step) / version, model / version)
        else:
            durable.move_into_place(candidate.model(step), model)
    for step, config in both.items():
        model = repository / contract.step_model(category, step)
        durable.move_into_place(config, model / CONFIG_FILE)

    ensemble = repository / category
    if served is None:
        durable.move_into_place(candidate.ensemble, ensemble)
    else:
        durable.move_into_place(candidate.ensemble / version, ensemble / version)
        durable.move_into_place(candidate.ensemble / CONFIG_FILE, ensemble / CONFIG_FILE)

    for step in both:
        model = repository / contract.step_model(category, step)
        durable.move_into_place(candidate.model(step) / CONFIG_FILE, model / CONFIG_FILE)


def _write_both(candidate: Candidate, repository: Path) -> dict[Step, Path]:
    """Write, aside, the configuration of each step already there that serves old and new."""
    metadata = candidate.metadata
    served = served_release(repository, metadata.category)
    written = {}
    for step in Step:
        if not (repository / contract.step_model(metadata.category, step)).exists():
            continue
        old = [served.step_versions[step]] if served else []
        config = shared_config(repository, metadata, step)
        model_config.serve_versions(config, [*old, candidate.version])
        written[step] = candidate.model(step) / _BOTH
        durable.write_text(written[step], model_config.render(config))
    return written


def _lock(handle: int, folder: Path, repository: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = folder.exists() and os.path.samestat(os.fstat(handle), folder.stat())
    except BlockingIOError:
        ours = False
    if not ours:  # another writer holds it, or removed it as it finished just now
        raise ReleaseError(
            f"another `diffusionad release` is writing to {repository}; try again when it is done"
        )


def _check_file_system(repository: Path, folder: Path) -> None:
    if repository.exists() and repository.stat().st_dev != folder.stat().st_dev:
        raise ReleaseError(
            f"{repository} is a mount point; files cannot be renamed into it from beside it. "
            f"Give a folder inside it, such as {repository / 'models'}"
        )


def _empty(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
        else:
            child.unlink()
