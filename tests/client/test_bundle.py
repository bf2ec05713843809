from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffusionad_client.bundle import METADATA_FILE, file_digest, graph_path, read_bundle
from diffusionad_client.contract import Step
from diffusionad_client.errors import BundleError
from diffusionad_client.metadata import ReleaseMetadata, Thresholds, release_digest

NAMING: dict[str, Any] = {
    "category": "screw",
    "digests": {"noise_prediction": "a", "reconstruction": "b", "segmentation": "c"},
    "thresholds": Thresholds(accept=0.25, reject=0.5),
    "pixel_threshold": 0.125,
}


@pytest.fixture
def bundle(tmp_path: Path, make_metadata: Callable[..., ReleaseMetadata]) -> Path:
    """A bundle whose graphs are of no use, but whole."""
    for step in Step:
        graph_path(tmp_path, step).write_bytes(step.value.encode())
    digests = {step.value: file_digest(graph_path(tmp_path, step)) for step in Step}
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
