"""int8 of networks and of frozen features, in a region of interest, from a run to results.

In short: what is exported stands in training's `test_precision` and `test_region`, how it is
gated and added in tools' `test_release_add`.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from demo_product import run_with_features
from PIL import Image

from diffusionad_client import Client
from diffusionad_client.artifacts import roi
from diffusionad_client.artifacts.bundle import read_bundle
from diffusionad_client.artifacts.metadata import Precision
from diffusionad_client.local_server import serve_repository
from diffusionad_tools.release.candidate import published

pytestmark = [pytest.mark.server, pytest.mark.long]

SIZE = 64


@pytest.fixture(scope="module")
def bundle(diffusionad, made_once, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    mask = np.zeros((96, 96), np.uint8)
    mask[:, :72] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    output = folder / "plate"
    result = diffusionad(
        *("export", run_with_features(made_once), "--output", output, "--name", "plate"),
        *("--precision", "int8", "--roi", folder / "mask.png"),
    )
    assert "int8 agrees with fp32 on 4 images" in result.stdout
    return output


@pytest.fixture(scope="module")
def int8_repository(diffusionad, bundle: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("int8-repository")
    result = diffusionad("release", "add", bundle, "--repository", folder)
    assert "int8 agrees with fp32: Spearman correlation" in result.stderr
    return folder


def test_what_is_served_is_int8_and_names_its_region_and_its_gate(
    diffusionad, bundle: Path, int8_repository: Path
) -> None:
    (listed,) = json.loads(
        diffusionad("release", "list", "--repository", int8_repository, "--json").stdout
    )
    exported = read_bundle(bundle).metadata
    assert (listed["precision"], listed["roi"]) == ("int8", exported.roi)
    with serve_repository(int8_repository) as url, Client(url) as client:
        served = client.served().metadata
        inspection = client.inspect(np.full((SIZE, SIZE, 3), 128, np.uint8))
    assert served.as_exported() == published(exported).as_exported()
    assert served.precision is Precision.INT8
    assert served.gate is not None
    assert served.gate.agreement is not None
    assert inspection.roi == exported.roi
    assert inspection.anomaly_map is not None
    outside = ~roi.read(bundle / "roi.png")
    assert outside.sum() == SIZE * SIZE / 4
    assert (inspection.anomaly_map[outside] == 0).all()


def test_results_name_the_region(
    diffusionad, data: Path, bundle: Path, int8_repository: Path, tmp_path: Path
) -> None:
    source, output = data / "test" / "good", tmp_path / "results"
    diffusionad("score", source, "--repository", int8_repository, "--output", output)
    region = read_bundle(bundle).metadata.roi
    rows = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert {row["roi"] for row in rows} == {region}
    assert region[:12] in (output / "report.html").read_text()
