"""Architecture: counts that were published, shapes, and how training starts."""

import pytest
import torch
from torch import nn

from diffusionad_training.config import NoiseNetworkConfig, SegmentationNetworkConfig
from diffusionad_training.config.presets import EDGE, PAPER
from diffusionad_training.networks.noise_unet import NoiseUNet, sinusoidal_embedding
from diffusionad_training.networks.segmentation_unet import SegmentationUNet


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_paper_preset_has_the_published_parameter_counts() -> None:
    with torch.device("meta"):
        assert parameters(NoiseUNet(PAPER.detector.noise_network)) == 131_654_403
        assert parameters(SegmentationUNet(PAPER.detector.segmentation_network)) == 28_373_569


def test_the_edge_preset_stays_small_enough_to_ship() -> None:
    with torch.device("meta"):
        total = parameters(NoiseUNet(EDGE.detector.noise_network)) + parameters(
            SegmentationUNet(EDGE.detector.segmentation_network)
        )
    assert total * 4 < 10e6  # bytes of float32 weights


@pytest.mark.parametrize("unshuffle", [1, 4])
def test_the_noise_network_keeps_the_shape_of_its_input(unshuffle: int) -> None:
    config = NoiseNetworkConfig(
        base_channels=32,
        multipliers=(1, 2),
        blocks=1,
        attention_levels=(1,),
        unshuffle=unshuffle,
    )
    network = NoiseUNet(config)
    out = network(torch.randn(2, 3, 32, 64), torch.tensor([0, 999]))
    assert out.shape == (2, 3, 32, 64)


def test_the_noise_network_starts_at_zero() -> None:
    config = NoiseNetworkConfig(base_channels=32, multipliers=(1, 2), blocks=1, attention_levels=())
    out = NoiseUNet(config)(torch.randn(1, 3, 16, 16), torch.tensor([5]))
    assert (out == 0).all()


def test_the_noise_network_uses_the_step() -> None:
    torch.manual_seed(0)
    network = NoiseUNet(
        NoiseNetworkConfig(base_channels=32, multipliers=(1, 2), blocks=1, attention_levels=(1,))
    )
    for parameter in network.parameters():  # away from the zeros it starts with
        nn.init.normal_(parameter, std=0.05)
    x = torch.randn(1, 3, 16, 16)
    assert not torch.allclose(network(x, torch.tensor([10])), network(x, torch.tensor([500])))


@pytest.mark.parametrize("unshuffle", [1, 2])
def test_the_segmentation_network_gives_one_logit_a_pixel(unshuffle: int) -> None:
    network = SegmentationUNet(SegmentationNetworkConfig(widths=(8, 16, 16), unshuffle=unshuffle))
    out = network(torch.randn(2, 3, 32, 64), torch.randn(2, 3, 32, 64))
    assert out.shape == (2, 1, 32, 64)


def test_step_embeddings_tell_steps_apart() -> None:
    table = sinusoidal_embedding(torch.arange(1000), 32)
    assert table.shape == (1000, 32)
    distances = torch.cdist(table, table) + 10 * torch.eye(1000)
    assert distances.min() > 0.05


def test_without_skips_the_network_answers_through_its_coarsest_level_alone() -> None:
    config = NoiseNetworkConfig(
        base_channels=32,
        multipliers=(1, 2),
        blocks=1,
        attention_levels=(),
        groups=8,
        skip_connections=False,
    )
    network = NoiseUNet(config)
    torch.nn.init.normal_(network.last[-1].weight)
    coarsest = network.middle[0].register_forward_pre_hook(
        lambda module, args: (torch.zeros_like(args[0]), args[1])
    )
    x, t = torch.randn(2, 3, 16, 16), torch.zeros(2)
    blind = network(x, t)
    torch.testing.assert_close(blind[0], blind[1])
    coarsest.remove()
    assert network(x, t).shape == x.shape
    assert not torch.allclose(network(x, t)[0], network(x, t)[1])
