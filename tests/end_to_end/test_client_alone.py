"""The client installs and works without torch, onnx, onnxruntime or the other distributions."""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from diffusionad_client.testing import FakeCategory, FakeServer

ROOT = Path(__file__).resolve().parents[2]

PROBE = """
import importlib.metadata, importlib.util, sys
import numpy
from diffusionad_client import Client, ServerUnavailableError
for name in ("torch", "lightning", "onnx", "onnxruntime", "pytriton", "scipy"):
    assert importlib.util.find_spec(name) is None, name
try:
    Client("127.0.0.1:1", timeout=3).inspect(numpy.zeros((8, 8, 3), numpy.uint8), model="m")
except ServerUnavailableError:
    print("the client runs")
from diffusionad_client.testing import FakeServer
with FakeServer() as server, Client(server.url) as client:
    print(client.inspect(numpy.zeros((8, 8, 3), numpy.uint8)).verdict)
"""


def declared(name: str, extras: frozenset[str] = frozenset()) -> dict[str, Distribution]:
    """Find an installed distribution and all that it says it needs, and they, and so on."""
    found = {canonicalize_name(name): distribution(name)}
    for line in distribution(name).requires or ():
        needed = Requirement(line)
        wanted = [{"extra": extra} for extra in ("", *extras)]
        if needed.marker is None or any(needed.marker.evaluate(one) for one in wanted):
            found |= declared(needed.name, frozenset(needed.extras))
    return found


def link(environment: Path) -> Path:
    """Make an environment of the client and what it declares, as this one has them installed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    for one in declared("diffusionad-client").values():
        tops = {path.parts[0] for path in one.files or () if path.suffix != ".pth"}
        for top in sorted(tops - {"..", "__pycache__"}):
            if not (packages / top).exists():
                (packages / top).symlink_to(one.locate_file(top))
    (packages / "diffusionad_client").symlink_to(ROOT / "client" / "diffusionad_client")
    return environment / "bin" / "python"


def install(environment: Path) -> Path:
    """Make an environment as the README says."""
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ROOT / "client"],
        check=True,
    )
    assert (environment / "bin" / "diffusionad").is_file()
    return python


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [link, pytest.param(install, marks=pytest.mark.long)])
def test_the_client_alone_runs_without_torch(
    prepare: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    python = prepare(tmp_path / "venv")
    probe = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=False)
    assert probe.stdout.split("\n") == ["the client runs", "OK", ""], probe.stderr
    command = [python, "-m", "diffusionad_client"]
    help_text = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "score" in help_text.stdout
    missing = subprocess.run([*command, "train"], capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert "diffusionad-training" in missing.stderr
    assert "pip install ./training" in missing.stderr  # no package index has it
    score_a_folder(command, tmp_path)


def score_a_folder(command: list[object], folder: Path) -> None:
    """Do what the README says comes after `pip install ./client`, with nothing else installed."""
    (folder / "parts").mkdir()
    Image.new("RGB", (40, 30), (250, 90, 90)).save(folder / "parts" / "a.png")
    with FakeServer(FakeCategory(size=32, score=0.9)) as server:
        score = [*command, "score", folder / "parts", "--url", server.url]
        score += ["--output", folder / "results"]
        done = subprocess.run(score, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "NG 1" in done.stdout
    assert (folder / "results" / "report.html").is_file()
    assert (folder / "results" / "heatmaps" / "a.png.png").is_file()
