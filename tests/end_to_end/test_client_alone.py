"""The client installs and works without torch, onnx, onnxruntime or the other distributions."""

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import grpc
import pytest
from PIL import Image
from tritonclient.grpc import service_pb2_grpc

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


def load_fakes() -> ModuleType:
    """Get the server that the client's own tests score against."""
    path = ROOT / "tests" / "client" / "conftest.py"
    spec = importlib.util.spec_from_file_location("fakes_of_the_client", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


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
    score_a_folder(command, tmp_path)


def score_a_folder(command: Path, folder: Path) -> None:
    """Do what the README says comes after `pip install ./client`, with nothing else installed."""
    fakes = load_fakes()
    triton = fakes.FakeTriton()
    triton.serve(fakes.make_metadata())
    server = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    (folder / "parts").mkdir()
    Image.new("RGB", (40, 30), (250, 90, 90)).save(folder / "parts" / "a.png")
    score = [command, "score", folder / "parts", "--url", url, "--output", folder / "results"]
    done = subprocess.run(score, capture_output=True, text=True, check=False)
    server.stop(grace=None).wait()
    assert done.returncode == 0, done.stderr
    assert "NG 1" in done.stdout
    assert (folder / "results" / "report.html").is_file()
    assert (folder / "results" / "heatmaps" / "a.png.png").is_file()
