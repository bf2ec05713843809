"""Copies of one image, told by their content: they stay on one side of every split.

A copy that is held out says nothing: the thresholds would be set by images
that were trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from diffusionad_training.data.digest import content
from diffusionad_training.errors import DataError


def contents(paths: Sequence[Path]) -> dict[Path, str]:
    """Name the content of each file; one that cannot be read is like no other.

    Raises `DataError` if the file system does not answer.
    """
    names = {}
    for path in paths:
        try:
            names[path] = content(path)
        except TimeoutError as exc:
            raise DataError(f"{path}: {exc.strerror}; is its drive there?") from exc
        except OSError:  # loading the images says so, with all others that are wrong
            names[path] = str(path)
    return names


def joined(groups: Sequence[str], contents: Sequence[str]) -> list[str]:
    """Join groups that share a content. Gives the group of each image."""
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    first: dict[str, str] = {}  # the group in which a content was first seen
    for group, name in zip(groups, contents, strict=True):
        one, other = sorted((root(group), root(first.setdefault(name, group))))
        parent[other] = one
    return [root(group) for group in groups]


def copies(contents: Mapping[Path, str]) -> int:
    """How many files are copies of another one."""
    return len(contents) - len(set(contents.values()))
