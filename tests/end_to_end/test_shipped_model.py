"""The model in model_repository/: small, clean, and good on parts it never saw."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_client.contract import Step
from diffusionad_tools.release.check import require_servable
from diffusionad_tools.release.repository import find_release, read_category

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = ROOT / "model_repository"
MODEL = "demo_plate"
UNSEEN_SEED = 1  # the model was trained on seed 0


def test_it_is_there_whole() -> None:
    names = {path.parent.name for path in REPOSITORY.glob("*/config.pbtxt")}
    steps = ("noise_prediction", "reconstruction", "segmentation", "judgement")
    parts = (f"{MODEL}__{part}" for part in (*steps, "encoded"))
    assert names == {MODEL, *parts, "image_decoding_256"}


def test_its_release_is_of_todays_contract_and_judges_itself() -> None:
    served = find_release(REPOSITORY, MODEL)
    assert served.metadata.contract == contract.NEWEST
    assert set(served.step_versions) == {*contract.NETWORK_STEPS, Step.JUDGEMENT}
    require_servable(read_category(REPOSITORY, MODEL), served)


def test_it_is_the_papers_system() -> None:
    """Norm guidance is in its graphs: what a step says of the large scale moves what is drawn."""
    graphs = {step: REPOSITORY / f"{MODEL}__{step.value}" for step in contract.NETWORK_STEPS}
    reconstruction = onnxruntime.InferenceSession(
        next(graphs[Step.RECONSTRUCTION].glob("*/model.onnx")), providers=["CPUExecutionProvider"]
    )
    given = {
        one.name: np.full([1, *one.shape[1:]], 0.1, np.float32)
        for one in reconstruction.get_inputs()
    }
    drawn = reconstruction.run(["reconstruction"], given)[0]
    for name, tensor in given.items():
        moved = tensor.copy()
        moved[:, 1] += 0.1  # at the large scale
        (other,) = reconstruction.run(["reconstruction"], given | {name: moved})
        assert np.abs(other - drawn).max() > 1e-3


def test_it_is_small_enough_to_ship() -> None:
    size = sum(path.stat().st_size for path in REPOSITORY.rglob("*") if path.is_file())
    assert size <= 16_000_000


def test_it_carries_no_path_of_a_machine() -> None:
    suspicious = re.compile(rb"/(home|root|tmp|usr|work|opt|mnt|Users)/|site-packages|\.py\b")
    for path in REPOSITORY.rglob("*"):
        if path.is_file():
            found = suspicious.search(path.read_bytes())
            assert found is None, f"{path.relative_to(ROOT)}: {found}"


@pytest.mark.server
@pytest.mark.slow
def test_it_finds_defects_on_parts_it_never_saw(diffusionad, tmp_path: Path) -> None:
    data, output = tmp_path / "data", tmp_path / "evaluation.json"
    diffusionad(
        *("demo-data", data, "--train", 0, "--test-good", 8, "--defective", 2),
        *("--seed", UNSEEN_SEED),
    )
    diffusionad(
        *("evaluate", data, "--repository", REPOSITORY, "--model", MODEL, "--output", output)
    )
    figures = json.loads(output.read_text())
    assert figures["image_auroc"] >= 0.95
    assert figures["pixel_auroc"] >= 0.93
    assert MODEL in figures["detector"]


def test_its_figures_in_the_metadata_were_measured() -> None:
    config = (REPOSITORY / MODEL / "config.pbtxt").read_text()
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    parameters = text_format.Parse(config, model_config_pb2.ModelConfig()).parameters
    metadata = ReleaseMetadata.from_json(parameters["diffusionad"].string_value)
    assert metadata.category == MODEL
    assert metadata.calibration.warning is None or "too few" in metadata.calibration.warning
    assert metadata.metrics["image_auroc"] is not None
    assert metadata.metrics["image_auroc"] >= 0.95
    assert metadata.metrics["pixel_auroc"] is not None
    assert metadata.metrics["pixel_auroc"] >= 0.93
