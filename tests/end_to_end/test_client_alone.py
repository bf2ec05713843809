"""The client installs and works without torch, onnx, onnxruntime or the other distributions."""

import subprocess
import sys
from pathlib import Path

import pytest

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
"""


@pytest.mark.slow
def test_the_client_alone_runs_without_torch(tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ROOT / "client"],
        check=True,
    )
    probe = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=False)
    assert probe.stdout.strip() == "the client runs", probe.stderr
    command = environment / "bin" / "diffusionad"
    help_text = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "score" in help_text.stdout
    missing = subprocess.run([command, "train"], capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert "diffusionad-training" in missing.stderr
    assert "pip install ./training" in missing.stderr  # no package index has it
