"""A small product from folder to server, by the commands a user types."""

import subprocess
import sys
from collections.abc import Callable, Iterator
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
def data(diffusionad: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("data") / "plates"
    diffusionad("demo-data", output, "--train", 8, "--test-good", 3, "--defective", 1, "--size", 96)
    return output


@pytest.fixture(scope="session")
def run_folder(diffusionad: Run, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / CATEGORY
    diffusionad(
        *("train", data, "--output", output, "--image-size", 64, "--steps", 5, "--batch", 4),
        *("--held-out", 0.3, "--workers", 0),
    )
    return output


@pytest.fixture(scope="session")
def bundle(diffusionad: Run, run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bundles") / CATEGORY
    diffusionad("export", run_folder, "--output", output, "--name", CATEGORY)
    return output


@pytest.fixture(scope="session")
def repository(diffusionad: Run, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    diffusionad("release", "add", bundle, "--repository", folder)
    return folder


@pytest.fixture(scope="session")
def url(repository: Path) -> Iterator[str]:
    with serve_repository(repository) as address:
        yield address
