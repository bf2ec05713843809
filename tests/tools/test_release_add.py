"""`diffusionad release add` and `list`, on a real Triton."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from click.testing import CliRunner, Result

from diffusionad_client import images
from diffusionad_client.artifacts.bundle import AgreementSet, Bundle
from diffusionad_client.artifacts.metadata import Precision, Thresholds, Verdict, release_digest
from diffusionad_client.cli import main
from diffusionad_client.errors import ServeError
from diffusionad_client.local_server import STARTUP_S
from diffusionad_client.sdk.client import Client
from diffusionad_tools.errors import GateError
from diffusionad_tools.release import gate
from diffusionad_tools.release.candidate import lay_out
from diffusionad_tools.release.gate import TOLERANCES, Difference
from diffusionad_tools.release.repository import Category, read_category, served_release
from diffusionad_tools.server.process import ServerSettings, running_server


def release(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["release", *map(str, arguments)])


@pytest.mark.server
def test_an_added_release_is_served_with_the_answers_that_numpy_computes(
    make_bundle: Any, handmade_model: Any, tmp_path: Path
) -> None:
    model = handmade_model(gain=0.5)
    bundle = make_bundle(model=model)
    repository = tmp_path / "deep" / "repository"

    result = release("add", bundle.folder, "--repository", repository)

    assert result.exit_code == 0, result.output
    assert f"Added widget version 1, release {bundle.metadata.release}" in result.stdout
    assert "tolerance 0.001" in result.stderr
    (image,) = model.images(1, seed=7)
    score, anomaly_map, picture = model.answer(image)
    with (
        running_server(ServerSettings(repository=repository)) as server,
        Client(server.grpc_url) as client,
    ):
        inspection = client.inspect(image)
    assert inspection.score == pytest.approx(score, abs=1e-6)
    assert inspection.anomaly_map is not None
    assert inspection.reconstruction is not None
    np.testing.assert_allclose(inspection.anomaly_map, anomaly_map, atol=1e-6)
    np.testing.assert_array_equal(inspection.reconstruction, picture)
    assert (inspection.model, inspection.version) == ("widget", "1")
    assert inspection.release == bundle.metadata.release
    assert inspection.verdict is Verdict.REVIEW


def agreement_set(model: Any, *, moved: float = 0.0) -> AgreementSet:
    """Images of rising contrast, which the model scores; the later ones are anomalous.

    Expected are the model's own scores, `moved` for the images that are not.
    """
    contrast = np.linspace(0.2, 1, 8).reshape(-1, 1, 1, 1)
    images = np.rint(127.5 + (model.images(8) - 127.5) * contrast).astype(np.uint8)
    anomalous = np.arange(8) >= 4
    scores = np.array([model.answer(image)[0] for image in images]) + moved * ~anomalous
    return AgreementSet(
        images, anomalous, scores.astype(np.float32), Thresholds(accept=0.2, reject=0.3)
    )


@pytest.mark.server
def test_what_the_gate_measured_stands_in_the_published_metadata(
    make_bundle: Any, handmade_model: Any, tmp_path: Path
) -> None:
    bundle = make_bundle(agreement_set=agreement_set(handmade_model()))
    repository = tmp_path / "repository"

    result = release("add", bundle.folder, "--repository", repository)

    assert result.exit_code == 0, result.output
    assert "int8 agrees with fp32: Spearman correlation of scores 1.0000" in result.stderr
    published = served_release(repository, "widget")
    assert published is not None
    assert published.metadata.contract == 2
    exported = replace(bundle.metadata, contract=2)
    assert published.metadata.as_exported() == exported.as_exported()
    measured = published.metadata.gate
    assert measured is not None
    assert measured.references == 2
    assert 0 <= measured.score_difference < 1e-5 < measured.score_tolerance
    assert 0 <= measured.map_difference < 1e-5 < measured.map_tolerance
    assert measured.server.startswith("triton 2.")
    assert measured.onnxruntime
    assert measured.agreement is not None
    assert (measured.agreement.images, measured.agreement.anomalous) == (8, 4)
    assert measured.agreement.verdict_flips == 0
    for ensemble in ("widget", "widget__encoded"):
        for name in ("config.pbtxt", "1/release.pbtxt"):
            assert '\\"gate\\": {' in (repository / ensemble / name).read_text()

    again = release("add", bundle.folder, "--repository", repository)
    assert f"Nothing to add: release {bundle.metadata.release} is served" in again.stdout


@pytest.mark.server
def test_a_precision_that_judges_otherwise_than_float32_is_not_published(
    make_bundle: Any, handmade_model: Any, tmp_path: Path
) -> None:
    wrong = agreement_set(handmade_model(), moved=0.5)  # float32 would reject the dim ones
    bundle = make_bundle(agreement_set=wrong)

    result = release("add", bundle.folder, "--repository", tmp_path / "repository")

    assert result.exit_code == 1
    assert "int8 as it is served here does not agree with fp32 on 8 images" in result.stderr
    for figure in ("Spearman correlation", "(at least 0.99)", "(at most 1%)", "(at most 0.5)"):
        assert figure in result.stderr
    assert "--precision fp32" in result.stderr
    assert not (tmp_path / "repository").exists()


def test_a_lower_precision_without_images_to_agree_on_is_refused(
    make_bundle: Any, handmade_model: Any, tmp_path: Path
) -> None:
    bundle = make_bundle(agreement_set=agreement_set(handmade_model()))
    (bundle.folder / "agreement.npz").unlink()
    result = release("add", bundle.folder, "--repository", tmp_path / "repository")
    assert result.exit_code == 1
    assert "agreement.npz: the bundle's agreement set cannot be read" in result.stderr


def test_a_lower_precision_may_round_a_little_further_from_its_references() -> None:
    assert not agree(score=0.505)
    assert agree(score=0.505, tolerance=TOLERANCES[Precision.INT8])
    assert not agree(score=0.53, tolerance=TOLERANCES[Precision.INT8])


@pytest.mark.server
def test_requests_that_triton_batches_together_get_each_its_own_answer(
    make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path
) -> None:
    model = handmade_model()
    publish_ungated(make_bundle(model=model), tmp_path / "repository")
    images = model.images(64, seed=3)
    settings = ServerSettings(repository=tmp_path / "repository")
    with (
        running_server(settings) as server,
        Client(server.grpc_url) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        scores = [i.score for i in pool.map(client.inspect, images)]
        with triton.InferenceServerClient(server.grpc_url) as raw:
            (about,) = raw.get_inference_statistics("widget__segmentation").model_stats
    np.testing.assert_allclose(scores, [model.answer(image)[0] for image in images], atol=1e-6)
    assert about.inference_count == len(images) + 1 + 8  # the warmup
    assert about.execution_count < about.inference_count  # some ran together


@pytest.mark.server
def test_a_release_whose_server_disagrees_with_its_references_is_refused_and_not_published(
    make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    publish_ungated(make_bundle(), repository)
    before = files_of(repository)
    wrong = make_bundle(model=handmade_model(gain=0.6), score_error=0.002)

    result = release("add", wrong.folder, "--repository", repository)

    assert result.exit_code == 1
    assert "disagrees with training on 2 of 2 reference images asked one by one" in result.stderr
    assert "tolerance: score 0.001" in result.stderr
    assert "reference 1: score" in result.stderr
    assert files_of(repository) == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.server
def test_a_release_that_triton_cannot_load_is_refused_with_the_servers_reason(
    make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    publish_ungated(make_bundle(), repository)
    config = repository / "widget__segmentation" / "config.pbtxt"
    tuned = config.read_text() + 'parameters { key: "intra_op_thread_count" '
    config.write_text(tuned + 'value { string_value: "many" } }')
    second = make_bundle(model=handmade_model(gain=0.6))

    result = release("add", second.folder, "--repository", repository)

    assert result.exit_code == 1
    assert "widget__segmentation version 2" in result.stderr
    assert "intra_op_thread_count is 'many'" in result.stderr
    assert not (repository / "widget__segmentation" / "2").exists()


def test_the_newest_release_is_not_added_again(
    make_bundle: Any, publish_ungated: Any, tmp_path: Path
) -> None:
    bundle = make_bundle()
    publish_ungated(bundle, tmp_path / "repository", encoded=True)
    before = files_of(tmp_path / "repository")

    result = release("add", bundle.folder, "--repository", tmp_path / "repository")

    assert result.exit_code == 0
    assert f"Nothing to add: release {bundle.metadata.release} is served already" in result.stdout
    assert files_of(tmp_path / "repository") == before


@pytest.mark.server
def test_a_release_exported_again_with_other_metrics_is_a_new_version(
    make_bundle: Any, publish_ungated: Any, tmp_path: Path
) -> None:
    publish_ungated(make_bundle(), tmp_path / "repository")
    again = make_bundle(metrics={"image_auroc": 0.9})

    result = release("add", again.folder, "--repository", tmp_path / "repository")

    assert result.exit_code == 0, result.output
    assert f"Added widget version 2, release {again.metadata.release}" in result.stdout


@pytest.mark.server
def test_a_category_released_without_its_encoded_form_gets_it_when_added_with_it(
    make_bundle: Any, publish_ungated: Any, tmp_path: Path
) -> None:
    bundle = make_bundle()
    publish_ungated(bundle, tmp_path / "repository", encoded=False)
    arguments = ("add", bundle.folder, "--repository", tmp_path / "repository")
    assert "Nothing to add" in release(*arguments, "--no-encoded").stdout

    result = release(*arguments)

    assert result.exit_code == 0, result.output
    assert "Added widget version 2" in result.stdout
    assert (tmp_path / "repository" / "widget__encoded" / "2").is_dir()
    assert "Nothing to add" in release(*arguments).stdout
    refused = release(*arguments, "--no-encoded")
    assert refused.exit_code == 1
    assert "widget__encoded first" in refused.stderr


def test_another_size_than_the_categorys_is_refused(
    make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path
) -> None:
    publish_ungated(make_bundle(), tmp_path / "repository")
    larger = make_bundle(model=handmade_model(size=48))

    result = release("add", larger.folder, "--repository", tmp_path / "repository")

    assert result.exit_code == 1
    assert "is 32 pixels wide, the bundle 48" in result.stderr
    assert "another category" in result.stderr


def test_graphs_with_other_tensors_than_the_contracts_are_refused_before_any_server_starts(
    make_bundle: Any, tmp_path: Path
) -> None:
    bundle = make_bundle()
    metadata = json.loads((bundle.folder / "metadata.json").read_text())
    (bundle.folder / "metadata.json").write_text(json.dumps({**metadata, "size": 40}))

    result = release("add", bundle.folder, "--repository", tmp_path / "repository")

    assert result.exit_code == 1
    assert "noise_prediction.onnx: its inputs are" in result.stderr
    assert "'batch', 40, 40, 3" in result.stderr


def test_a_graph_that_onnx_runtime_does_not_load_is_refused(
    make_bundle: Any, tmp_path: Path
) -> None:
    bundle = make_bundle()
    graph = bundle.folder / "segmentation.onnx"
    graph.write_bytes(b"no graph")
    metadata = bundle.metadata
    digests = metadata.digests | {"segmentation": hashlib.sha256(b"no graph").hexdigest()}
    name = release_digest(
        category=metadata.category,
        digests=digests,
        thresholds=metadata.thresholds,
        pixel_threshold=metadata.pixel_threshold,
    )
    altered = replace(metadata, digests=digests, release=name)
    (bundle.folder / "metadata.json").write_text(altered.to_json())

    result = release("add", bundle.folder, "--repository", tmp_path / "repository")

    assert result.exit_code == 1
    assert "segmentation.onnx: ONNX Runtime" in result.stderr
    assert not (tmp_path / "repository").exists()


def test_a_bundle_without_reference_images_is_refused(make_bundle: Any, tmp_path: Path) -> None:
    bundle = make_bundle(images=0)
    result = release("add", bundle.folder, "--repository", tmp_path / "repository")
    assert result.exit_code == 1
    assert "no reference images" in result.stderr


def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    result = release("add", tmp_path / "nowhere", "--repository", tmp_path / "repository")
    assert result.exit_code == 1
    assert "nowhere: no such bundle folder" in result.stderr


def test_what_is_not_a_number_never_agrees() -> None:
    nan = float("nan")
    assert agree()
    assert not agree(score=nan)
    assert not agree(map=nan)


def test_another_verdict_is_a_difference_unless_the_score_lies_at_a_threshold() -> None:
    assert not agree(verdict=Verdict.OK)
    assert agree(expected_score=0.7, score=0.6999, verdict=Verdict.REVIEW)
    assert not agree(expected_score=0.702, score=0.702, verdict=Verdict.REVIEW)


class FakeClient:
    """Answers as references do, off by `error` whenever two requests meet, or for files."""

    def __init__(self, bundle: Bundle, *, together: float = 0.0, encoded: float = 0.0) -> None:
        self.references = bundle.references()
        self.thresholds = bundle.metadata.thresholds
        self.together = together
        self.encoded = encoded
        self.meeting = threading.Semaphore(1)

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def health(self) -> Any:
        return SimpleNamespace(server="triton", version="2.51.0")

    def inspect(self, image: Any, *, decode: str = "client", **_: Any) -> Any:
        if decode == "server":
            return self._answer(images.load(image), self.encoded)
        alone = self.meeting.acquire(blocking=False)
        time.sleep(0.1)
        if alone:
            self.meeting.release()
        return self._answer(image, 0.0 if alone else self.together)

    def _answer(self, image: Any, error: float) -> Any:
        (index,) = (i for i, known in enumerate(self.references.images) if (known == image).all())
        score = float(self.references.scores[index]) + error
        return SimpleNamespace(
            score=score,
            verdict=self.thresholds.verdict(score),
            anomaly_map=self.references.anomaly_maps[index],
        )


def category_of(bundle: Bundle, folder: Path) -> Category:
    return read_category(folder / "repository", bundle.metadata.category)


def ask_fake(
    monkeypatch: pytest.MonkeyPatch,
    bundle: Bundle,
    folder: Path,
    misjudged: Sequence[str] = (),
    **errors: float,
) -> list[ServerSettings]:
    """Let the gate ask a fake client; give the settings of the server that it would start."""
    asked: list[ServerSettings] = []

    def running(settings: ServerSettings) -> Any:
        asked.append(settings)
        return nullcontext(SimpleNamespace(grpc_url="127.0.0.1:1"))

    monkeypatch.setattr(gate, "running_server", running)
    monkeypatch.setattr(gate, "Client", lambda *_, **__: FakeClient(bundle, **errors))
    monkeypatch.setattr(gate, "misjudged", lambda *_, **__: iter(misjudged))
    candidate = lay_out(bundle, category_of(bundle, folder), folder / "candidate")
    gate.compare(candidate, bundle.references(), ready_timeout=77)
    return asked


def test_a_server_that_judges_by_something_else_does_not_pass_the_gate(
    make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = "widget: answer 0 was judged by another release"
    with pytest.raises(GateError, match=f"{problem}; nothing was published"):
        ask_fake(monkeypatch, make_bundle(), tmp_path, misjudged=[problem])


def test_answers_that_are_right_pass_the_gate(
    make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings,) = ask_fake(monkeypatch, make_bundle(), tmp_path)
    assert settings.ready_timeout == 77


def test_answers_that_are_wrong_only_in_a_batch_are_found_before_publishing(
    make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GateError, match="on 1 of 2 reference images asked all at once"):
        ask_fake(monkeypatch, make_bundle(), tmp_path, together=0.5)


def test_a_file_with_another_score_than_its_pixels_is_found_before_publishing(
    make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GateError, match="reference 0: as a file it got the score"):
        ask_fake(monkeypatch, make_bundle(), tmp_path, encoded=3e-6)


def test_a_server_that_dies_while_it_is_asked_gives_its_own_reason(
    make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_alive() -> None:
        raise ServeError("Triton stopped: it was killed by signal 9")

    server = SimpleNamespace(grpc_url="127.0.0.1:1", check_alive=check_alive)  # nobody is there
    monkeypatch.setattr(gate, "running_server", lambda settings: nullcontext(server))
    bundle = make_bundle()
    candidate = lay_out(bundle, category_of(bundle, tmp_path), tmp_path / "candidate")
    with pytest.raises(ServeError, match="signal 9"):
        gate.compare(candidate, bundle.references(), ready_timeout=1)


def test_the_bundles_models_may_load_as_long_as_any_servers(
    make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def compare(*_: object, ready_timeout: float, **__: object) -> None:
        waited.append(ready_timeout)
        raise GateError("enough")

    monkeypatch.setattr(gate, "compare", compare)
    arguments = ("add", make_bundle().folder, "--repository", tmp_path / "repository")
    assert release(*arguments).exit_code == 1
    assert release(*arguments, "--ready-timeout", "1200").exit_code == 1
    assert waited == [STARTUP_S, 1200]


def test_list_shows_every_release_and_which_is_served(
    make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path
) -> None:
    first, second = make_bundle(), make_bundle(model=handmade_model(gain=0.75))
    other = make_bundle(category="gadget")
    for bundle in (first, second, other):
        publish_ungated(bundle, tmp_path / "repository")

    result = release("list", "--repository", tmp_path / "repository", "--json")

    assert result.exit_code == 0
    listed = [
        (r["category"], r["version"], r["served"], r["release"]) for r in json.loads(result.stdout)
    ]
    assert listed == [
        ("gadget", 1, True, other.metadata.release),
        ("widget", 1, False, first.metadata.release),
        ("widget", 2, True, second.metadata.release),
    ]


def test_list_prints_a_table_with_sizes_and_thresholds(
    make_bundle: Any, publish_ungated: Any, tmp_path: Path
) -> None:
    bundle = make_bundle(thresholds=Thresholds(accept=0.125, reject=0.5))
    publish_ungated(bundle, tmp_path / "repository")

    result = release("list", "--repository", tmp_path / "repository")

    heading, row = (line.split() for line in result.stdout.splitlines())
    assert heading[:6] == ["category", "version", "served", "release", "published", "size"]
    assert row[:4] == ["widget", "1", "yes", bundle.metadata.release[:12]]
    assert row[4] == f"{datetime.now():%Y-%m-%d}"
    assert row[-3:] == ["32", "0.1250", "0.5000"]


def test_list_shows_thresholds_however_narrow_the_terminal_is(
    make_bundle: Any, publish_ungated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    publish_ungated(make_bundle(category="A" * 64), tmp_path / "repository")
    result = release("list", "--repository", tmp_path / "repository")
    assert result.stdout.splitlines()[1].split()[-2:] == ["0.2000", "0.3000"]


def test_list_of_a_missing_repository_says_how_to_make_one(tmp_path: Path) -> None:
    result = release("list", "--repository", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "nowhere: no such model repository" in result.stderr


def test_list_leaves_out_models_that_are_no_category(
    make_bundle: Any, publish_ungated: Any, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    publish_ungated(make_bundle(), repository)
    (repository / "foreign").mkdir()
    (repository / "foreign" / "config.pbtxt").write_text('name: "foreign" backend: "python"')

    result = release("list", "--repository", repository, "--json")

    assert [r["category"] for r in json.loads(result.stdout)] == ["widget"]


def test_list_names_the_file_whose_metadata_is_damaged(
    make_bundle: Any, publish_ungated: Any, tmp_path: Path
) -> None:
    publish_ungated(make_bundle(), tmp_path / "repository")
    config = tmp_path / "repository" / "widget" / "config.pbtxt"
    config.write_text(config.read_text().replace("schema_version", "scheme_version"))

    result = release("list", "--repository", tmp_path / "repository")

    assert result.exit_code == 1
    assert f"{config}: the release metadata has schema None" in result.stderr


def test_a_category_does_not_take_the_place_of_another_model_of_its_name(
    make_bundle: Any, tmp_path: Path
) -> None:
    config = tmp_path / "repository" / "widget" / "config.pbtxt"
    config.parent.mkdir(parents=True)
    config.write_text('name: "widget" backend: "python"')

    result = release("add", make_bundle().folder, "--repository", tmp_path / "repository")

    assert result.exit_code == 1
    assert f"{config}: no parameter 'diffusionad'" in result.stderr


def agree(**changes: Any) -> bool:
    """Tell whether training and a server agree that, by these changes, do not quite."""
    limits = Thresholds(accept=0.3, reject=0.7)
    same = Difference(
        image=0,
        expected_score=0.5,
        score=0.5,
        map=0.0,
        verdict=Verdict.REVIEW,
        thresholds=limits,
    )
    return replace(same, **changes).within_tolerance


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
