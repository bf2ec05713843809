"""Which folders of a model repository are models, and which only lie there.

Triton takes every folder for a model, and a server that is to load them all
stops at one without a configuration: at the `lost+found` of a file system, the
`.snapshot` or `@eaDir` of a storage server, somebody's `.git`. So these are
told apart here, by names and by what is in them; nothing is parsed.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from diffusionad_client import contract

_CONFIG_FILE, _RELEASE_FILE = "config.pbtxt", "release.pbtxt"


class FolderKind(Enum):
    """What a folder of a repository is."""

    OURS = "ours"  # of a release, whole or not: an ensemble, a step, what decodes for them
    FOREIGN = "foreign"  # another model, which has a configuration
    STRAY = "stray"  # no model, and nobody's business here


def kinds(repository: Path) -> dict[str, FolderKind]:
    """Say of every folder of a repository what it is, by name, in order.

    Files are left out: Triton passes over them. What is neither, a link to
    nowhere, is as stray as a folder.
    """
    return {path.name: _kind(path) for path in sorted(repository.iterdir()) if not _is_file(path)}


def strays(repository: Path) -> list[str]:
    """Name what is no model and nobody's business in a repository; nothing of ours touches it."""
    return [name for name, kind in kinds(repository).items() if kind is FolderKind.STRAY]


def passing_over(names: list[str]) -> str:
    """Tell a user of strays, in one line."""
    return (
        f"Passing over {', '.join(names)}: no model of Triton's (no {_CONFIG_FILE}). A "
        "tritonserver that loads everything from this folder stops there; name its models with "
        "--load-model, or move that away."
    )


def _kind(folder: Path) -> FolderKind:
    try:
        if _is_ours(folder):
            return FolderKind.OURS
        return FolderKind.FOREIGN if (folder / _CONFIG_FILE).is_file() else FolderKind.STRAY
    except OSError:  # it may not be read, as lost+found may not: so it is none that is served
        return FolderKind.STRAY


def _is_ours(folder: Path) -> bool:
    name = folder.name
    ends = (*contract.step_models(""), contract.encoded_model(""))
    if any(name.endswith(end) and contract.is_category(name.removesuffix(end)) for end in ends):
        return True
    if contract.is_decoding(name):
        return True
    return contract.is_category(name) and any(folder.glob(f"*/{_RELEASE_FILE}"))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False
