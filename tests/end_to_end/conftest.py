"""A small product from folder to server, by the commands a user types."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from diffusionad_client.local_server import serve_repository

CATEGORY = "plate"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def diffusionad() -> Run:
    """Run the command as a user does; by default it must succeed."""

    def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [sys.executable, "-m", "diffusionad_client", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == code, f"{arguments}\n{result.stdout}\n{result.stderr}"
        assert "Traceback" not in result.stdout + result.stderr
        return result

    return run


@pytest.fixture(scope="session")
def data(diffusionad: Run, made_once: Callable[..., Path]) -> Path:
    size = ("--train", 8, "--test-good", 3, "--defective", 1, "--size", 96)
    return made_once("demo-plates", lambda folder: diffusionad("demo-data", folder, *size))


@pytest.fixture(scope="session")
def run_folder(diffusionad: Run, data: Path, made_once: Callable[..., Path]) -> Path:
    short = ("--image-size", 64, "--steps", 5, "--batch", 4, "--held-out", 0.3, "--workers", 0)
    return made_once("demo-run", partial(diffusionad, "train", data, *short, "--output"))


@pytest.fixture(scope="session")
def bundle(diffusionad: Run, run_folder: Path, made_once: Callable[..., Path]) -> Path:
    export = partial(diffusionad, "export", run_folder, "--name", CATEGORY, "--output")
    return made_once("demo-bundle", export)


@pytest.fixture(scope="session")
def repository(diffusionad: Run, bundle: Path, made_once: Callable[..., Path]) -> Path:
    add = partial(diffusionad, "release", "add", bundle, "--repository")
    return made_once("demo-repository", add)


@pytest.fixture(scope="session")
def url(repository: Path) -> Iterator[str]:
    with serve_repository(repository) as address:
        yield address
