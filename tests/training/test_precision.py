"""Lower precisions: what is half or 8 bits, what stays float32, and what is not exported."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper
from scipy import stats

from diffusionad_client.artifacts import agreement
from diffusionad_client.artifacts.bundle import read_bundle
from diffusionad_client.artifacts.metadata import Agreement, Precision
from diffusionad_client.cli import main
from diffusionad_client.contract import NETWORK_STEPS, NOISY, SCORE, Step, step_signature
from diffusionad_training.errors import ExportError
from diffusionad_training.evaluation import metrics
from diffusionad_training.export import bundle, detector, lowering
from diffusionad_training.export.graphs import IR_VERSION, OPSET, serialise
from diffusionad_training.export.runtime import GraphChain
from diffusionad_training.run.checkpoint import load_run

LOWER = [Precision.FP16, Precision.INT8]
NETWORKS = [Step.NOISE_PREDICTION, Step.SEGMENTATION]

Graphs = dict[Step, bytes]


def images(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def exact(tiny_traced: dict[Step, onnx.ModelProto]) -> Graphs:
    return {step: serialise(tiny_traced[step], step) for step in NETWORK_STEPS}


@pytest.fixture(scope="module")
def lowered(tiny_traced: dict[Step, onnx.ModelProto]) -> dict[Precision, Graphs]:
    return {precision: lowering.lower(tiny_traced, precision, images()) for precision in LOWER}


def element_types(graph: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(graph, strict_mode=True).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {constant.name: constant.data_type for constant in inferred.initializer}


def nodes(graph: onnx.ModelProto, *kinds: str) -> Iterator[onnx.NodeProto]:
    found = [node for node in graph.graph.node if node.op_type in kinds]
    assert found, f"the graph has no {kinds}"
    yield from found


@pytest.mark.parametrize("precision", LOWER)
def test_scores_stay_close_to_float32_s(
    precision: Precision, lowered: dict[Precision, Graphs], exact: Graphs
) -> None:
    expected = GraphChain(exact).run(images())
    found = GraphChain(lowered[precision]).run(images())
    np.testing.assert_allclose(found[SCORE], expected[SCORE], atol=0.02)
    assert (found[SCORE] != expected[SCORE]).any()


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize("step", list(NETWORK_STEPS))
def test_inputs_and_outputs_stay_the_contract_s(
    precision: Precision, step: Step, lowered: dict[Precision, Graphs]
) -> None:
    graph = onnx.load_from_string(lowered[precision][step]).graph
    names = {TensorProto.UINT8: "UINT8", TensorProto.FLOAT: "FP32"}
    signature = step_signature(step, 64)
    for values, specs in ((graph.input, signature.inputs), (graph.output, signature.outputs)):
        types = [(value.name, names[value.type.tensor_type.elem_type]) for value in values]
        assert types == [(spec.name, spec.dtype) for spec in specs]


@pytest.mark.parametrize("precision", LOWER)
def test_the_oldest_runtime_promised_knows_every_operator(
    precision: Precision, lowered: dict[Precision, Graphs]
) -> None:
    for data in lowered[precision].values():
        graph = onnx.load_from_string(data)
        assert graph.ir_version == IR_VERSION
        assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", OPSET)]


@pytest.mark.parametrize("precision", LOWER)
def test_no_path_and_no_stack_trace_is_left(
    precision: Precision, lowered: dict[Precision, Graphs]
) -> None:
    for data in lowered[precision].values():
        for trace in (b".py", b"stack_trace", b"site-packages", b"/tmp", b"NoiseUNet"):
            assert trace not in data


@pytest.mark.parametrize("precision", LOWER)
def test_lowering_twice_gives_identical_bytes(
    precision: Precision,
    tiny_traced: dict[Step, onnx.ModelProto],
    lowered: dict[Precision, Graphs],
) -> None:
    assert lowering.lower(tiny_traced, precision, images()) == lowered[precision]


@pytest.mark.parametrize("precision", LOWER)
def test_the_equations_stay_exactly_as_they_are(
    precision: Precision, lowered: dict[Precision, Graphs], exact: Graphs
) -> None:
    assert lowered[precision][Step.RECONSTRUCTION] == exact[Step.RECONSTRUCTION]
    expected, found = (GraphChain(graphs).run(images()) for graphs in (exact, lowered[precision]))
    np.testing.assert_array_equal(found[NOISY], expected[NOISY])


def test_fp16_halves_weights_and_convolutions(
    lowered: dict[Precision, Graphs], exact: Graphs
) -> None:
    for step in NETWORKS:
        data = lowered[Precision.FP16][step]
        graph = onnx.load_from_string(data)
        types = element_types(graph)
        for node in nodes(graph, "Conv"):
            assert {types[name] for name in node.input} == {TensorProto.FLOAT16}
        assert len(data) < 0.7 * len(exact[step])


def test_fp16_leaves_norms_attention_and_the_step_s_angles_in_float32(
    lowered: dict[Precision, Graphs],
) -> None:
    graph = onnx.load_from_string(lowered[Precision.FP16][Step.NOISE_PREDICTION])
    types = element_types(graph)
    sensitive = ("InstanceNormalization", "Softmax", "MatMul", "Sin", "Cos", "Sqrt", "Div")
    for node in nodes(graph, *sensitive):
        assert {types[name] for name in node.input} == {TensorProto.FLOAT}, node.op_type


def test_fp16_leaves_map_and_score_in_float32(lowered: dict[Precision, Graphs]) -> None:
    graph = onnx.load_from_string(lowered[Precision.FP16][Step.SEGMENTATION])
    types = element_types(graph)
    for node in nodes(graph, "Sigmoid", "TopK", "ReduceMean"):
        assert types[node.input[0]] == TensorProto.FLOAT, node.op_type


def test_fp16_does_not_round_between_operations_that_stay_in_float32(
    lowered: dict[Precision, Graphs],
) -> None:
    for data in lowered[Precision.FP16].values():
        graph = onnx.load_from_string(data)
        casts = {node.output[0]: node for node in graph.graph.node if node.op_type == "Cast"}
        assert not [node for node in casts.values() if node.input[0] in casts]


def test_int8_quantises_all_convolutions_but_the_first_and_the_last(
    lowered: dict[Precision, Graphs],
) -> None:
    graph = onnx.load_from_string(lowered[Precision.INT8][Step.NOISE_PREDICTION])
    restored = {node.output[0] for node in nodes(graph, "DequantizeLinear")}
    convolutions = list(nodes(graph, "Conv"))
    quantised = [node.input[1] in restored for node in convolutions]  # their weights
    assert quantised == [False, *[True] * (len(convolutions) - 2), False]
    assert all(node.input[0] in restored for node in convolutions[1:-1])


def test_int8_rounds_nothing_but_what_goes_into_and_comes_out_of_convolutions(
    lowered: dict[Precision, Graphs],
) -> None:
    graph = onnx.load_from_string(lowered[Precision.INT8][Step.NOISE_PREDICTION])
    readers: dict[str, set[str]] = {}
    makers = {name: node.op_type for node in graph.graph.node for name in node.output}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    restored = {node.input[0]: node.output[0] for node in nodes(graph, "DequantizeLinear")}
    for node in nodes(graph, "QuantizeLinear"):
        read_by = readers[restored[node.output[0]]]
        assert makers[node.input[0]] == "Conv" or "Conv" in read_by, node.name


def test_int8_leaves_the_segmentation_as_it_is(
    lowered: dict[Precision, Graphs], exact: Graphs
) -> None:
    assert lowered[Precision.INT8][Step.SEGMENTATION] == exact[Step.SEGMENTATION]


def test_rank_statistics_are_those_of_scipy_and_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 20, 50) / 20  # with ties
    second = first + rng.integers(0, 10, 50) / 20
    anomalous = rng.random(50) < 0.4
    assert agreement.spearman(first, second) == pytest.approx(
        stats.spearmanr(first, second).statistic
    )
    assert agreement.auroc(first, anomalous) == pytest.approx(
        metrics.image_auroc(first.tolist(), anomalous.tolist())
    )


def test_a_precision_that_misses_a_limit_is_refused_with_every_figure_and_the_remedy() -> None:
    measured = Agreement(images=8, anomalous=4, spearman=0.9, verdict_flips=0.25, auroc_loss=0.02)
    with pytest.raises(ExportError) as refused:
        lowering.check_agreement(Precision.INT8, measured)
    for part in ("int8", "0.9000 (at least 0.99)", "25.0% (at most 1%)", "2.00 points (at most"):
        assert part in str(refused.value)
    assert "nothing was written" in str(refused.value)
    assert "--precision fp32" in str(refused.value)


def test_graphs_that_judge_differently_are_not_written(
    tiny_run: Path,
    tiny_traced: dict[Step, onnx.ModelProto],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upside_down = {
        step: onnx.ModelProto.FromString(tiny_traced[step].SerializeToString())
        for step in NETWORK_STEPS
    }
    for weights in upside_down[Step.SEGMENTATION].graph.initializer:
        if weights.name.endswith("segmentation_network.last.weight"):
            weights.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weights), weights.name))
    wrong = {step: serialise(upside_down[step], step) for step in NETWORK_STEPS}
    monkeypatch.setattr(bundle, "trace_step", lambda model, step: tiny_traced[step])  # to save time
    monkeypatch.setattr(detector.lowering, "lower", lambda *_: wrong)
    with pytest.raises(ExportError, match="fp16 does not agree with fp32 on 6 images"):
        bundle.export(
            load_run(tiny_run), tmp_path / "b", category="plates", precision=Precision.FP16
        )
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def half_bundle(
    tiny_run: Path, traced_before: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("bundles") / "half"
    arguments = ["--output", str(output), "--name", "plates", "--precision", "fp16"]
    with traced_before(*NETWORK_STEPS):
        result = CliRunner().invoke(main, ["export", str(tiny_run), *arguments])
    assert result.exit_code == 0, result.output
    assert "fp16 agrees with fp32 on 6 images: Spearman" in result.stdout
    assert "on this CPU" in result.stdout
    return output


def test_a_lower_precision_carries_its_figures_and_the_set_that_they_were_measured_on(
    half_bundle: Path, tiny_run: Path
) -> None:
    exported = read_bundle(half_bundle)
    metadata, expected = exported.metadata, exported.agreement_set()
    assert metadata.precision is Precision.FP16
    assert metadata.speedup is not None
    assert metadata.speedup > 0
    assert metadata.agreement is not None
    assert agreement.is_within_limits(metadata.agreement)
    assert expected is not None
    assert expected.anomalous.tolist() == [False] * 3 + [True] * 3
    graphs = {step: exported.graph(step).read_bytes() for step in NETWORK_STEPS}
    scores = [one.score for one in GraphChain(graphs).score(expected.images)]
    assert agreement.measure(expected, scores, metadata.thresholds) == metadata.agreement


def test_thresholds_are_those_of_the_precision_that_is_served(
    half_bundle: Path, tiny_run: Path
) -> None:
    exported = read_bundle(half_bundle)
    graphs = {step: exported.graph(step).read_bytes() for step in NETWORK_STEPS}
    held_out = load_run(tiny_run).held_out_images()
    highest = max(one.score for one in GraphChain(graphs).score(held_out))
    assert exported.metadata.thresholds.reject == np.nextafter(np.float32(highest), np.float32(2))


def test_the_references_of_a_lower_precision_hold_its_own_answers(half_bundle: Path) -> None:
    exported = read_bundle(half_bundle)
    references = exported.references()
    graphs = {step: exported.graph(step).read_bytes() for step in NETWORK_STEPS}
    scores = [one.score for one in GraphChain(graphs).score(references.images)]
    np.testing.assert_allclose(references.scores, scores, atol=1e-6)
