"""What is exported computes the same as what was trained, with less work."""

import copy
from collections import Counter

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from diffusionad_client.contract import Step
from diffusionad_training.config import Config
from diffusionad_training.config.settings import changed
from diffusionad_training.export.lean import ServedMemory, after_norm, lean, over_pixels
from diffusionad_training.method.features import FeatureMemory
from diffusionad_training.method.model import DiffusionAD

CONFIGS = {
    "both scales alike": {},
    "a reduced large step": {"guidance.large_reduction": 2},
    "the small step alone": {"guidance.weight": 0.0},
    "features and a memory": {
        "features.backbone": "efficientnet-lite0",
        "features.memory": 1_001,  # more than go into one product
        "segmentation_network.widths": [8, 16, 16],
    },
}


def moved(module: nn.Module) -> nn.Module:
    """Give every weight and statistic a value of its own, as after a training."""
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.dtype == torch.float32:
                tensor.add_(0.1 * (torch.rand_like(tensor) - 0.5))
    return module.eval()


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_a_lean_model_answers_as_the_trained_one(
    tiny_config: Config, changes: dict[str, object]
) -> None:
    torch.manual_seed(0)
    model = DiffusionAD(changed(tiny_config, changes).detector)
    moved(model)
    images = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        trained, served = model(images), lean(model)(images)
    torch.testing.assert_close(served.score, trained.score, atol=1e-5, rtol=0)
    torch.testing.assert_close(served.anomaly_map, trained.anomaly_map, atol=1e-5, rtol=0)
    assert float(trained.anomaly_map.std()) > 1e-3  # else anything would agree
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@given(st.sampled_from([1, 2, 4]), st.sampled_from([1, 3, 5]), st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_strides_over_pixels_are_a_convolution_of_unshuffled_ones(
    factor: int, kernel: int, seed: int
) -> None:
    torch.manual_seed(seed)
    conv = nn.Conv2d(3 * factor**2, 5, kernel, padding=kernel // 2)
    x = torch.rand(2, 3, 16, 24)
    torch.testing.assert_close(
        over_pixels(conv, factor)(x), conv(nn.PixelUnshuffle(factor)(x)), atol=1e-5, rtol=1e-5
    )


def test_a_normalisation_is_folded_into_what_follows_it() -> None:
    torch.manual_seed(0)
    norm, conv = moved(nn.BatchNorm2d(6)), nn.Conv2d(6, 4, 1)
    assert isinstance(norm, nn.BatchNorm2d)
    x = torch.randn(2, 6, 5, 5)
    torch.testing.assert_close(after_norm(norm, conv)(x), conv(norm(x)))


def test_a_served_memory_finds_the_same_patches() -> None:
    torch.manual_seed(0)
    memory = FeatureMemory(1_500)
    memory.patches.normal_()
    memory.unit.fill_(3.0)
    queries = torch.randn(2, memory.patches.shape[1], 3, 5)
    queries[0, :, 0, 0] = memory.patches[1_400]
    served = ServedMemory(memory)(queries)
    torch.testing.assert_close(served, memory(queries), atol=1e-3, rtol=1e-4)
    assert float(served[0, 0, 0, 0]) < 0.01 < float(served.flatten()[1:].min())


def test_a_graph_asks_for_no_sizes_that_are_known(tiny_traced: dict[Step, onnx.ModelProto]) -> None:
    operators = Counter(node.op_type for node in tiny_traced[Step.NOISE_PREDICTION].graph.node)
    assert operators["InstanceNormalization"] == operators["BatchNormalization"] > 0
    assert operators["MatMul"] == 2 * operators["Softmax"] > 0
    assert operators["Shape"] <= 1  # of the batch
