from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusionad_client.artifacts import roi
from diffusionad_client.artifacts.bundle import (
    AGREEMENT_FILE,
    METADATA_FILE,
    ROI_FILE,
    AgreementSet,
    file_digest,
    graph_path,
    read_bundle,
    write_agreement_set,
)
from diffusionad_client.artifacts.metadata import (
    Agreement,
    Precision,
    ReleaseMetadata,
    Thresholds,
    release_digest,
)
from diffusionad_client.contract import NETWORK_STEPS, Step
from diffusionad_client.errors import BundleError

NAMING: dict[str, Any] = {
    "category": "screw",
    "digests": {"noise_prediction": "a", "reconstruction": "b", "segmentation": "c"},
    "thresholds": Thresholds(accept=0.25, reject=0.5),
    "pixel_threshold": 0.125,
}


@pytest.fixture
def bundle(tmp_path: Path, make_metadata: Callable[..., ReleaseMetadata]) -> Path:
    """A bundle whose graphs are of no use, but whole."""
    for step in NETWORK_STEPS:
        graph_path(tmp_path, step).write_bytes(step.value.encode())
    digests = {step.value: file_digest(graph_path(tmp_path, step)) for step in NETWORK_STEPS}
    metadata = make_metadata(digests=digests)
    release = release_digest(
        category=metadata.category,
        digests=digests,
        thresholds=metadata.thresholds,
        pixel_threshold=metadata.pixel_threshold,
    )
    text = make_metadata(digests=digests, release=release).to_json()
    (tmp_path / METADATA_FILE).write_text(text)
    return tmp_path


def test_a_release_is_named_by_a_digest_that_never_changes() -> None:
    assert release_digest(**NAMING) == "1e28248b6989"


@pytest.mark.parametrize(
    "change",
    [
        {"category": "bolt"},
        {"digests": NAMING["digests"] | {"segmentation": "d"}},
        {"thresholds": Thresholds(accept=0.25, reject=0.75)},
        {"pixel_threshold": 0.5},
        {"resize": "another-1"},
    ],
)
def test_whatever_answers_depend_on_changes_the_name(change: dict[str, Any]) -> None:
    assert release_digest(**NAMING | change) != release_digest(**NAMING)


def test_a_whole_bundle_is_read(bundle: Path) -> None:
    assert read_bundle(bundle).metadata.category == "screw"


def test_thresholds_altered_by_hand_are_noticed_and_both_names_are_told(bundle: Path) -> None:
    path = bundle / METADATA_FILE
    before = ReleaseMetadata.from_json(path.read_text())
    path.write_text(path.read_text().replace('"reject": 0.6', '"reject": 0.9'))
    altered = ReleaseMetadata.from_json(path.read_text())
    expected = release_digest(
        category=altered.category,
        digests=altered.digests,
        thresholds=altered.thresholds,
        pixel_threshold=altered.pixel_threshold,
    )
    with pytest.raises(BundleError, match=f"'{before.release}'.*'{expected}'.*altered"):
        read_bundle(bundle)


def test_a_graph_that_was_changed_is_named(bundle: Path) -> None:
    graph_path(bundle, Step.SEGMENTATION).write_bytes(b"other")
    with pytest.raises(BundleError, match=r"segmentation\.onnx: not the file"):
        read_bundle(bundle)


def change(bundle: Path, **changes: Any) -> None:
    """Rewrite the bundle's metadata; the release's name does not depend on these fields."""
    path = bundle / METADATA_FILE
    metadata = ReleaseMetadata.from_json(path.read_text())
    path.write_text(replace(metadata, **changes).to_json())


def lower(bundle: Path) -> None:
    agreement = Agreement(images=4, anomalous=2, spearman=1.0, verdict_flips=0.0, auroc_loss=0.0)
    change(bundle, precision=Precision.INT8, agreement=agreement)


def test_float32_has_nothing_to_agree_with(bundle: Path) -> None:
    assert read_bundle(bundle).agreement_set() is None


def test_an_agreement_set_is_read_as_it_was_written(bundle: Path) -> None:
    lower(bundle)
    written = AgreementSet(
        images=np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8),
        anomalous=np.array([False, False, True, True]),
        scores=np.array([0.1, 0.2, 0.8, 0.9], np.float32),
        thresholds=Thresholds(accept=0.1, reject=1 / 3),
    )
    write_agreement_set(bundle / AGREEMENT_FILE, written)
    read = read_bundle(bundle).agreement_set()
    assert read is not None
    assert read.thresholds == written.thresholds
    for name in ("images", "anomalous", "scores"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_an_agreement_set_that_cannot_be_read_is_named(bundle: Path, content: bytes | None) -> None:
    lower(bundle)
    if content is not None:
        (bundle / AGREEMENT_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=r"agreement\.npz: the bundle's agreement set"):
        read_bundle(bundle).agreement_set()


def test_a_bundle_keeps_the_region_that_its_metadata_names(bundle: Path) -> None:
    mask = np.eye(8, dtype=bool)
    (bundle / ROI_FILE).write_bytes(roi.to_png(mask))
    change(bundle, roi=roi.digest(mask))
    assert read_bundle(bundle).metadata.roi == roi.digest(mask)


def test_another_region_than_the_metadata_names_is_noticed(bundle: Path) -> None:
    (bundle / ROI_FILE).write_bytes(roi.to_png(np.eye(8, dtype=bool)))
    change(bundle, roi=roi.digest(~np.eye(8, dtype=bool)))
    with pytest.raises(BundleError, match=r"roi\.png: not the mask that was exported"):
        read_bundle(bundle)


def test_a_region_that_is_missing_is_noticed(bundle: Path) -> None:
    change(bundle, roi="a" * 64)
    with pytest.raises(BundleError, match=r"roi\.png: cannot be read"):
        read_bundle(bundle)
