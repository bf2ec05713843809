"""From a run to a bundle: the same answers, clean graphs, honest thresholds."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper
from PIL import Image

from diffusionad_client import images
from diffusionad_client.artifacts.bundle import References, read_bundle
from diffusionad_client.cli import main
from diffusionad_client.contract import NETWORK_STEPS, Step, step_signature
from diffusionad_training.errors import ExportError
from diffusionad_training.evaluation.results import METRICS
from diffusionad_training.evaluation.scorers import TorchScorer
from diffusionad_training.export.bundle import export
from diffusionad_training.export.graphs import IR_VERSION, OPSET, serialise
from diffusionad_training.export.parity import check_parity
from diffusionad_training.export.runtime import GraphChain
from diffusionad_training.run.checkpoint import CONFIG_FILE, load_run


@pytest.fixture(scope="module")
def bundle(tiny_run: Path, traced_before: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bundles") / "plates"
    with traced_before(*NETWORK_STEPS):
        export(load_run(tiny_run), output, category="plates")
    return output


def graphs_of(bundle: Path) -> dict[Step, bytes]:
    return {step: read_bundle(bundle).graph(step).read_bytes() for step in NETWORK_STEPS}


def test_onnx_runtime_answers_as_torch_does_at_every_batch_size(
    bundle: Path, tiny_run: Path
) -> None:
    graphs = graphs_of(bundle)
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    expected = list(TorchScorer(load_run(tiny_run).model).score_arrays(images))
    for count in (1, 3, 5):
        tensors = GraphChain(graphs).run(images[:count])
        np.testing.assert_allclose(
            tensors["SCORE"][:, 0], [one.score for one in expected[:count]], atol=1e-5
        )
        np.testing.assert_allclose(
            tensors["ANOMALY_MAP"], [one.anomaly_map for one in expected[:count]], atol=1e-4
        )


def test_graphs_have_the_contract_s_tensors(bundle: Path) -> None:
    names = {onnx.TensorProto.UINT8: "UINT8", onnx.TensorProto.FLOAT: "FP32"}
    for step, data in graphs_of(bundle).items():
        graph = onnx.load_from_string(data)
        signature = step_signature(step, 64)
        for values, specs in (
            (graph.graph.input, signature.inputs),
            (graph.graph.output, signature.outputs),
        ):
            found = [
                (
                    value.name,
                    names[value.type.tensor_type.elem_type],
                    tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]),
                )
                for value in values
            ]
            assert found == [(spec.name, spec.dtype, spec.dims) for spec in specs]
            assert all(v.type.tensor_type.shape.dim[0].dim_param == "batch" for v in values)


def test_graphs_load_in_the_oldest_runtime_promised(bundle: Path) -> None:
    for data in graphs_of(bundle).values():
        graph = onnx.load_from_string(data)
        assert graph.ir_version == IR_VERSION <= 10
        assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", OPSET)]
        assert OPSET <= 20


def test_graphs_carry_no_path_and_no_stack_trace(bundle: Path) -> None:
    here = Path(__file__).resolve()
    for step, data in graphs_of(bundle).items():
        for trace in (
            b".py",
            b"File ",
            b"stack_trace",
            b"site-packages",
            str(here.parents[2]).encode(),
        ):
            assert trace not in data, f"{step.value} holds {trace!r}"
        graph = onnx.load_from_string(data)
        assert not graph.metadata_props
        assert all(not node.metadata_props and not node.doc_string for node in graph.graph.node)


def test_a_graph_of_other_weights_has_another_name(
    tiny_traced: dict[Step, onnx.ModelProto],
) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(tiny_traced[Step.SEGMENTATION])
    (weights,) = (w for w in other.graph.initializer if w.name.endswith("last.weight"))
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) + 0.5, weights.name))
    graphs = tiny_traced[Step.SEGMENTATION], other
    before, after = (onnx.load_from_string(serialise(g, Step.SEGMENTATION)) for g in graphs)
    assert before.graph.name != after.graph.name


def test_every_step_s_graph_has_a_name_of_its_own(bundle: Path) -> None:
    names = {onnx.load_from_string(data).graph.name for data in graphs_of(bundle).values()}
    assert len(names) == len(NETWORK_STEPS)


@pytest.mark.parametrize(
    "before",
    [
        pytest.param((Step.NOISE_PREDICTION,), id="but for the step that takes longest"),
        pytest.param((), id="all of it", marks=pytest.mark.long),
    ],
)
def test_exporting_twice_gives_identical_files(
    bundle: Path, tiny_run: Path, traced_before: Any, tmp_path: Path, before: tuple[Step, ...]
) -> None:
    run = load_run(tiny_run)
    run.model.restrict_to(torch.eye(64, dtype=torch.bool))  # as an export with a region leaves it
    with traced_before(*before):
        export(run, tmp_path / "again", category="plates")
    for path in bundle.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_bundle_may_be_read_by_whom_any_folder_may(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert bundle.stat().st_mode == (tmp_path / "folder").stat().st_mode


def test_metadata_tells_where_the_release_came_from(bundle: Path, tiny_run: Path) -> None:
    metadata = read_bundle(bundle).metadata
    record = load_run(tiny_run).record
    assert metadata.category == "plates"
    assert metadata.size == 64
    assert metadata.training.data_digest == record.data_digest
    assert metadata.training.images == record.training_images
    assert len(metadata.release) == 12


def test_a_run_and_its_release_remember_the_depth_of_the_images(
    tiny_run: Path, traced_before: Any, tmp_path: Path
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    config = (run / CONFIG_FILE).read_text()
    (run / CONFIG_FILE).write_text(config.replace('"depth": 16', '"depth": 12'))
    with traced_before(*NETWORK_STEPS):
        arguments = ["export", str(run), "--output", str(tmp_path / "bundle")]
        result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert read_bundle(tmp_path / "bundle").metadata.depth == 12
    grey = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "unstated.png")
    Image.fromarray(images.load(tmp_path / "unstated.png", depth=12)).save(tmp_path / "8.png")
    model = load_run(run).model
    paths = [tmp_path / "unstated.png", tmp_path / "8.png"]
    (unstated, eight) = TorchScorer(model).score(paths)
    assert unstated.score == eight.score


def test_thresholds_hold_on_the_held_out_images_and_say_when_they_are_few(
    bundle: Path, tiny_run: Path
) -> None:
    run = load_run(tiny_run)
    metadata = read_bundle(bundle).metadata
    scores = [one.score for one in TorchScorer(run.model).score_arrays(run.held_out_images())]
    assert metadata.thresholds.accept <= metadata.thresholds.reject
    assert all(score < metadata.thresholds.reject for score in scores)
    assert metadata.calibration.good_images == 3
    assert metadata.calibration.warning is not None
    assert "too few" in metadata.calibration.warning


def test_references_hold_good_images_and_anomalies_with_torch_s_answers(
    bundle: Path, tiny_run: Path
) -> None:
    references = read_bundle(bundle).references()
    assert len(references.images) == len(references.scores) == 6  # 3 held out, 3 made anomalous
    expected = list(TorchScorer(load_run(tiny_run).model).score_arrays(references.images))
    np.testing.assert_allclose(references.scores, [one.score for one in expected], atol=1e-6)
    assert (references.images[:3] != references.images[3:]).any()


def test_graphs_that_differ_from_torch_are_not_written(bundle: Path) -> None:
    references = read_bundle(bundle).references()
    wrong = References(references.images, references.scores + 0.01, references.anomaly_maps)
    with pytest.raises(ExportError, match="differ from the trained model: score by 1.00e-02"):
        check_parity(graphs_of(bundle), wrong)
    no_number = References(references.images, references.scores * np.nan, references.anomaly_maps)
    with pytest.raises(ExportError, match="nan"):
        check_parity(graphs_of(bundle), no_number)


def test_the_command_refuses_a_folder_that_exists(tiny_run: Path, bundle: Path) -> None:
    result = CliRunner().invoke(
        main, ["export", str(tiny_run), "--output", str(bundle), "--name", "plates"]
    )
    assert result.exit_code == 1
    assert "exists already" in result.output


def test_the_command_refuses_a_name_that_breaks_the_rule(tiny_run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["export", str(tiny_run), "--output", str(tmp_path / "b"), "--name", "a__b"]
    )
    assert result.exit_code == 1
    assert "'a__b' cannot name a category" in result.output
    assert not list(tmp_path.iterdir())


def test_figures_of_other_weights_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    evaluation = tmp_path / "evaluation.json"
    evaluation.write_text(json.dumps({"detector": "other"} | dict.fromkeys(METRICS, 0.5)))
    result = CliRunner().invoke(
        main,
        ["export", str(tiny_run), "--output", str(tmp_path / "b"), "--evaluation", str(evaluation)],
    )
    assert result.exit_code == 1
    assert "measured other weights" in result.output
