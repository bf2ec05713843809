"""The region of interest: what lies outside neither shows on the map nor counts in the score."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusionad_client import Connection
from diffusionad_client.artifacts import roi
from diffusionad_client.artifacts.bundle import ROI_FILE, read_bundle
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_client.cli import main
from diffusionad_client.contract import ANOMALY_MAP, NETWORK_STEPS, SCORE, TOP_PIXELS, Step
from diffusionad_training.config import Config
from diffusionad_training.data.roi import read_roi, served_roi
from diffusionad_training.errors import RoiError
from diffusionad_training.evaluation import detectors
from diffusionad_training.evaluation.results import METRICS
from diffusionad_training.export.runtime import GraphChain
from diffusionad_training.export.samples import draw_samples
from diffusionad_training.method.model import DiffusionAD, Segmentation
from diffusionad_training.run.checkpoint import load_run

SIZE = 64


class FixedLogits(torch.nn.Module):
    """Stands in for the segmentation network: says the same of every image."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(
        self, image: torch.Tensor, reconstruction: torch.Tensor, features: None
    ) -> torch.Tensor:
        return self.logits.expand(len(image), 1, SIZE, SIZE)


@cache
def detector_of(config: Config) -> DiffusionAD:
    return DiffusionAD(config.detector)


def segment(
    config: Config, logits: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    model = detector_of(config)
    model.segmentation_network = FixedLogits(logits)  # type: ignore[assignment]
    model.restrict_to(mask)
    images = torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8)
    anomaly_map, score = Segmentation(model)(images, torch.zeros(1, 3, SIZE, SIZE))
    return anomaly_map[0], score[0, 0]


@given(seed=st.integers(0, 2**16), share=st.floats(0.02, 0.9))
def test_pixels_outside_are_zero_and_cannot_change_the_score(
    tiny_config: Config, seed: int, share: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 1, SIZE, SIZE, generator=generator) * 5
    mask = torch.rand(SIZE, SIZE, generator=generator) < share
    anomaly_map, score = segment(tiny_config, logits, mask)
    assert (anomaly_map[~mask] == 0).all()
    assert (anomaly_map[mask] > 0).all()
    loud_outside = torch.where(mask, logits, torch.tensor(100.0))
    again, same = segment(tiny_config, loud_outside, mask)
    assert torch.equal(again, anomaly_map)
    assert score == same


def test_the_score_is_the_mean_of_the_highest_pixels_inside(tiny_config: Config) -> None:
    torch.manual_seed(0)
    logits, mask = torch.randn(1, 1, SIZE, SIZE), torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[10:40, 10:40] = True
    _, score = segment(tiny_config, logits, mask)
    inside = torch.sigmoid(logits[0, 0][mask])
    torch.testing.assert_close(score, inside.topk(TOP_PIXELS).values.mean())


@pytest.fixture(scope="module")
def mask_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn at the camera's size; the left half is inspected."""
    path = tmp_path_factory.mktemp("masks") / "left.png"
    drawn = np.zeros((200, 300), np.uint8)
    drawn[:, :150] = 255
    Image.fromarray(drawn).save(path)
    return path


@pytest.fixture(scope="module")
def bundle(
    tiny_run: Path,
    mask_file: Path,
    traced_before: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    output = tmp_path_factory.mktemp("bundles") / "plates"
    arguments = ["--output", str(output), "--name", "plates", "--roi", str(mask_file)]
    with traced_before(Step.NOISE_PREDICTION, Step.RECONSTRUCTION):  # these know of no region
        result = CliRunner().invoke(main, ["export", str(tiny_run), *arguments])
    assert result.exit_code == 0, result.output
    return output


def test_the_region_is_a_constant_of_the_exported_graphs(bundle: Path, mask_file: Path) -> None:
    mask = read_roi(mask_file, SIZE)
    graphs = {step: read_bundle(bundle).graph(step).read_bytes() for step in NETWORK_STEPS}
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    tensors = GraphChain(graphs).run(images)
    assert (tensors[ANOMALY_MAP][:, ~mask] == 0).all()
    assert (tensors[ANOMALY_MAP][:, mask] > 0).all()
    highest = np.sort(tensors[ANOMALY_MAP][:, mask], axis=1)[:, -TOP_PIXELS:]
    np.testing.assert_allclose(tensors[SCORE][:, 0], highest.mean(axis=1), rtol=1e-5)


def test_the_bundle_names_the_region_and_keeps_it_to_look_at(bundle: Path, mask_file: Path) -> None:
    mask = read_roi(mask_file, SIZE)
    assert read_bundle(bundle).metadata.roi == roi.digest(mask)
    np.testing.assert_array_equal(roi.read(bundle / ROI_FILE), mask)
    assert mask.sum() == SIZE * SIZE / 2


def test_references_are_answered_within_the_region(bundle: Path, mask_file: Path) -> None:
    mask = read_roi(mask_file, SIZE)
    assert (read_bundle(bundle).references().anomaly_maps[:, ~mask] == 0).all()


def test_synthetic_anomalies_lie_in_the_region() -> None:
    good = np.full((6, SIZE, SIZE, 3), 120, np.uint8)
    good[:, ::4] = 60
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:12, :12] = True
    drawn = draw_samples(good, 6, roi=mask)
    changed = (drawn.altered != good[drawn.chosen]).any(axis=-1)
    assert changed[:, mask].any(axis=1).all()
    assert not changed[:, ~mask].any()


def save(path: Path, mask: np.ndarray) -> Path:
    Image.fromarray(mask).save(path)
    return path


def test_a_region_that_leaves_nothing_out_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "full.png", np.full((99, 99), 255, np.uint8))
    with pytest.raises(RoiError, match=r"full\.png: all of its pixels lie inside"):
        read_roi(path, SIZE)


def test_a_thin_region_is_still_there_when_it_is_shrunk(tmp_path: Path) -> None:
    drawn = np.zeros((40 * SIZE, 40 * SIZE), np.uint8)
    drawn[5::400] = 1
    mask = read_roi(save(tmp_path / "thin.png", drawn), SIZE)
    assert mask.sum() == len(drawn[5::400]) * SIZE


def test_a_region_that_was_exported_by_the_nearest_pixel_is_still_known(tmp_path: Path) -> None:
    drawn = np.zeros((301, 301), np.uint8)
    drawn[101:199, 60:211] = 255
    path = save(tmp_path / "roi.png", drawn)
    nearest = roi.read_by_nearest(path, SIZE)
    assert roi.digest(nearest) != roi.digest(read_roi(path, SIZE))
    np.testing.assert_array_equal(
        served_roi(path, "plates", SimpleNamespace(size=SIZE, roi=roi.digest(nearest))), nearest
    )


def test_an_empty_region_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "empty.png", np.zeros((99, 99), np.uint8))
    with pytest.raises(RoiError, match=r"empty\.png: none of its pixels .* needs 50"):
        read_roi(path, SIZE)


def test_a_region_too_small_for_a_score_is_refused(tmp_path: Path) -> None:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:7, :7] = 255
    with pytest.raises(RoiError, match="49 of its pixels lie inside at 64 x 64"):
        read_roi(save(tmp_path / "small.png", mask), SIZE)
    mask[7, 7] = 255
    assert read_roi(save(tmp_path / "enough.png", mask), SIZE).sum() == TOP_PIXELS


@pytest.mark.parametrize("content", [None, b"no image"])
def test_a_region_that_cannot_be_read_is_one_clear_message(
    tiny_run: Path, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "roi.png"
    if content is not None:
        path.write_bytes(content)
    arguments = ["--output", str(tmp_path / "b"), "--name", "plates", "--roi", str(path)]
    result = CliRunner().invoke(main, ["export", str(tiny_run), *arguments])
    assert result.exit_code == 1
    assert "roi.png" in result.output
    assert not (tmp_path / "b").exists()


def test_a_served_roi_can_be_read_from_the_mask_or_from_the_bundle(
    bundle: Path, mask_file: Path
) -> None:
    metadata = read_bundle(bundle).metadata
    mask = served_roi(mask_file, "plates", metadata)
    assert roi.digest(mask) == metadata.roi
    np.testing.assert_array_equal(served_roi(bundle / ROI_FILE, "plates", metadata), mask)


def test_a_served_model_cannot_be_measured_in_another_region_than_its_own(
    bundle: Path, mask_file: Path, tmp_path: Path
) -> None:
    metadata = read_bundle(bundle).metadata
    other = save(tmp_path / "other.png", np.eye(SIZE, dtype=bool))
    with pytest.raises(RoiError, match=r"other\.png: .* plates inspects .* roi\.png"):
        served_roi(other, "plates", metadata)
    whole = replace(metadata, roi=None)
    with pytest.raises(RoiError, match="plates inspects the whole image.*--run RUN --roi MASK"):
        served_roi(mask_file, "plates", whole)


class FakeClient:
    """Serves one release, without a server."""

    def __init__(self, metadata: ReleaseMetadata) -> None:
        self._served = SimpleNamespace(model="plates", metadata=metadata)

    def __call__(self, connection: Connection, **options: object) -> "FakeClient":
        return self

    def __enter__(self) -> "FakeClient":
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def served(self) -> SimpleNamespace:
        return self._served


def test_a_served_roi_that_is_not_given_is_warned_of(
    bundle: Path, mask_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = read_bundle(bundle).metadata
    monkeypatch.setattr(detectors, "Client", FakeClient(metadata))
    with detectors.of_server(Connection("127.0.0.1:1"), None, mask=None) as detector:
        assert detector.roi is None
        assert "Give that region as --roi MASK" in (detector.warning or "")
    with detectors.of_server(Connection("127.0.0.1:1"), None, mask=mask_file) as detector:
        assert detector.roi is not None
        assert detector.warning is None
    monkeypatch.setattr(detectors, "Client", FakeClient(replace(metadata, roi=None)))
    with detectors.of_server(Connection("127.0.0.1:1"), None, mask=None) as detector:
        assert detector.warning is None


def test_figures_of_another_region_do_not_go_into_a_release(
    tiny_run: Path, mask_file: Path, tmp_path: Path
) -> None:
    evaluation = tmp_path / "evaluation.json"
    detector = load_run(tiny_run).weights_digest
    evaluation.write_text(json.dumps({"detector": detector} | dict.fromkeys(METRICS, 0.5)))
    arguments = ["--output", str(tmp_path / "b"), "--roi", str(mask_file)]
    result = CliRunner().invoke(
        main, ["export", str(tiny_run), *arguments, "--evaluation", str(evaluation)]
    )
    assert result.exit_code == 1
    assert "measured another region of interest than is exported" in result.output
    assert f"--run {tiny_run} --roi {mask_file}" in result.output
