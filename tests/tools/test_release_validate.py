"""`diffusionad release validate`: what it finds, and what it holds against a real Triton."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from diffusionad_client.artifacts.bundle import References, file_digest, read_references
from diffusionad_client.cli import main
from diffusionad_tools.release import references as kept
from diffusionad_tools.release.repository import find_release
from diffusionad_tools.release.thresholds import set_thresholds


def validate(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["release", "validate", *map(str, arguments)])


@pytest.fixture
def repository(make_bundle: Any, publish_ungated: Any, tmp_path: Path) -> Path:
    publish_ungated(make_bundle(images=6), tmp_path / "repository")
    return tmp_path / "repository"


@pytest.mark.server
def test_a_repository_as_it_was_published_passes(
    make_bundle: Any, publish_ungated: Any, tmp_path: Path
) -> None:
    repository = tmp_path / "encoded"
    publish_ungated(make_bundle(images=6), repository, encoded=True)
    set_thresholds(repository, "widget", accept=0.1)  # shares the references of the first
    result = validate("--repository", repository, "--json")
    assert result.exit_code == 0, result.output
    (widget,) = json.loads(result.stdout)
    assert widget["passed"]
    assert [check["what"] for check in widget["checks"]] == [
        "configurations",
        "graphs",
        "every model is ready",
        "every warmup ran",
        "metadata as served",
        "answers to 4 references, in batches of 1 to 8",
        "judged as the release says",
        "files get the scores of their pixels",
    ]
    assert "tolerance 0.001" in widget["checks"][-3]["details"][0]


@pytest.mark.server
def test_answers_that_are_not_trainings_fail_and_the_other_category_does_not(
    repository: Path, make_bundle: Any, publish_ungated: Any
) -> None:
    publish_ungated(make_bundle(category="gadget", score_error=0.01), repository)

    result = validate("--repository", repository)

    assert result.exit_code == 1
    assert "widget: ok     answers to 4 references" in result.stdout
    assert "gadget: FAILED answers to 2 references" in result.stdout
    assert "in a batch of 1, reference 0: score" in result.stdout
    assert "not as it must be: gadget" in result.stderr


@pytest.mark.server
def test_a_model_that_triton_does_not_load_fails_with_its_reason(repository: Path) -> None:
    config = repository / "widget__segmentation" / "config.pbtxt"
    tuned = config.read_text() + 'parameters { key: "intra_op_thread_count" '
    config.write_text(tuned + 'value { string_value: "many" } }')
    result = validate("widget", "--repository", repository)
    assert result.exit_code == 1
    assert "widget: FAILED answers" in result.stdout
    assert "intra_op_thread_count is 'many'" in result.stdout


def test_a_broken_configuration_fails_before_any_server_starts(repository: Path) -> None:
    path = repository / "widget__segmentation" / "config.pbtxt"
    path.write_text("nonsense")
    result = validate("--repository", repository, "--json")
    assert result.exit_code == 1
    checks = json.loads(result.stdout)[0]["checks"]
    assert [(check["what"], check["passed"]) for check in checks] == [
        ("configurations", False),
        ("graphs and answers: not checked, because of the above", False),
    ]
    assert str(path) in checks[0]["details"][0]


def test_an_ensemble_that_cannot_be_read_is_still_looked_at(repository: Path) -> None:
    (repository / "widget" / "config.pbtxt").write_text("nonsense")
    result = validate("--repository", repository)
    assert result.exit_code == 1
    assert "widget: FAILED configurations" in result.stdout


def test_a_corrupted_graph_fails(repository: Path) -> None:
    graph = repository / "widget__segmentation" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    result = validate("--repository", repository)
    assert result.exit_code == 1
    assert f"{graph}: not the file that was published" in result.stdout


def test_steps_without_an_ensemble_fail(repository: Path) -> None:
    shutil.rmtree(repository / "widget")
    result = validate("--repository", repository)
    assert result.exit_code == 1
    assert "widget: missing, there are steps of it only" in result.stdout


def test_a_release_without_its_references_fails(repository: Path) -> None:
    (repository / "widget__segmentation" / "1" / "references.npz").unlink()
    result = validate("--repository", repository)
    assert result.exit_code == 1
    assert "references.npz: missing, so the release cannot be compared with" in result.stdout


def test_an_unknown_category_is_named_with_those_there_are(repository: Path) -> None:
    result = validate("bolt", "--repository", repository)
    assert result.exit_code == 1
    assert "no category 'bolt'; it holds widget" in result.stderr


def test_an_empty_repository_is_not_called_valid(tmp_path: Path) -> None:
    result = validate("--repository", tmp_path)
    assert result.exit_code == 1
    assert "nothing to validate" in result.stderr


def test_kept_references_are_a_small_sample_from_first_to_last(
    handmade_model: Any, tmp_path: Path
) -> None:
    model = handmade_model(size=64)
    images = model.images(8)
    answers = [model.answer(image) for image in images]
    everything = References(
        images,
        np.array([score for score, _, _ in answers], np.float32),
        np.array([anomaly_map for _, anomaly_map, _ in answers], np.float32),
    )
    kept.keep(everything, tmp_path)
    found = read_references(tmp_path / "references.npz")
    np.testing.assert_array_equal(found.images, images[[0, 2, 5, 7]])
    np.testing.assert_array_equal(found.scores, everything.scores[[0, 2, 5, 7]])
    np.testing.assert_allclose(found.anomaly_maps, everything.anomaly_maps[[0, 2, 5, 7]], atol=3e-4)
    assert found.anomaly_maps.dtype == np.float32


def test_publishing_twice_keeps_the_same_bytes(
    make_bundle: Any, publish_ungated: Any, tmp_path: Path
) -> None:
    bundle = make_bundle()
    digests = set()
    for name in ("one", "two"):
        publish_ungated(bundle, tmp_path / name)
        version = find_release(tmp_path / name, "widget").version
        digests.add(
            file_digest(tmp_path / name / "widget__segmentation" / str(version) / "references.npz")
        )
    assert len(digests) == 1
