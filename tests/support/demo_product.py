"""A small product from folder to repository, by the commands a user types; made once a run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

CATEGORY = "screw"  # as the documents call it
# The preset's networks with a level of each kind, and one of the stride of its memory: an export
# takes its time over every block, and longest over those of the backbone.
LEVELS = (
    *("--set", "noise_network.multipliers=[1, 2]", "--set", "noise_network.attention_levels=[1]"),
    *("--set", "segmentation_network.widths=[16, 32, 64]"),
)
SHALLOW = (*LEVELS, "--set", "features.backbone=none")

MadeOnce = Callable[..., Path]


def diffusionad(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does; by default it must succeed."""
    result = subprocess.run(
        [sys.executable, "-m", "diffusionad_client", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == code, f"{arguments}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stdout + result.stderr
    return result


def pictures(made_once: MadeOnce) -> Path:
    """Eight good ones to train on; three good and one of each defect to test."""
    size = ("--train", 8, "--test-good", 3, "--defective", 1, "--size", 96)
    return made_once("demo-plates", lambda folder: diffusionad("demo-data", folder, *size))


def run(made_once: MadeOnce) -> Path:
    """A few steps of `edge` on them, of fewer levels and without features of a backbone."""
    return _run(made_once, "demo-run", SHALLOW)


def run_with_features(made_once: MadeOnce) -> Path:
    """The same with them."""
    return _run(made_once, "demo-run-with-features", LEVELS)


def _run(made_once: MadeOnce, name: str, settings: tuple[str, ...]) -> Path:
    short = ("--image-size", 64, "--steps", 5, "--batch", 4, "--held-out", 0.3, "--workers", 0)
    train = partial(diffusionad, "train", pictures(made_once), *short, *settings, "--output")
    return made_once(name, train)


def bundle(made_once: MadeOnce) -> Path:
    """That run, exported."""
    export = partial(diffusionad, "export", run(made_once), "--name", CATEGORY, "--output")
    return made_once("demo-bundle", export)


def repository(made_once: MadeOnce) -> Path:
    """A model repository that serves it."""
    add = partial(diffusionad, "release", "add", bundle(made_once), "--repository")
    return made_once("demo-repository", add)


def two_categories(made_once: MadeOnce) -> Path:
    """The same with the same networks under a second name, `nut`."""

    def make(folder: Path) -> None:
        shutil.copytree(repository(made_once), folder)
        diffusionad("release", "add", bundle(made_once), "--name", "nut", "--repository", folder)

    return made_once("demo-repository-of-two", make)
