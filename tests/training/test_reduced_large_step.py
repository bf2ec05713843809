"""The large step on a reduced image: all equations hold as they are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusionad_client.contract import NETWORK_STEPS
from diffusionad_training.config import Config
from diffusionad_training.config.settings import changed
from diffusionad_training.errors import ConfigError
from diffusionad_training.export.graphs import export_step
from diffusionad_training.export.runtime import GraphChain
from diffusionad_training.fit.module import TrainingModule
from diffusionad_training.footprint.cost import blank_batch, cost
from diffusionad_training.method import diffusion, losses
from diffusionad_training.method.model import DiffusionAD, NoisePrediction, Reconstruction
from diffusionad_training.method.restoration import LARGE, SMALL, Estimate, TrainingImages


@pytest.fixture(scope="module")
def config(tiny_config: Config) -> Config:
    return changed(tiny_config, {"guidance.large_reduction": 2})


@pytest.fixture(scope="module")
def model(config: Config) -> DiffusionAD:
    torch.manual_seed(0)
    model = DiffusionAD(config.detector).eval()
    torch.nn.init.normal_(model.noise_network.last[-1].weight, std=0.05)  # it begins at zero
    return model


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(40, 216, (3, 64, 64, 3), dtype=torch.uint8, generator=generator)


@given(st.integers(1, 4), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_a_reduced_noisy_image_is_a_noisy_reduced_image(k: int, share: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x0, noise = (torch.randn(2, 3, 4 * k, 8 * k, generator=generator) for _ in range(2))
    alpha_bar = torch.tensor([share, 0.5])
    noisy = diffusion.add_noise(x0, diffusion.coarse(noise, k), alpha_bar)
    expected = diffusion.add_noise(diffusion.reduced(x0, k), noise[..., ::k, ::k], alpha_bar)
    torch.testing.assert_close(diffusion.reduced(noisy, k), expected, atol=1e-5, rtol=1e-5)


def test_the_fixed_noise_of_the_large_step_is_that_of_the_reduced_image(model: DiffusionAD) -> None:
    large = model.noise[LARGE].float()[None]
    assert torch.equal(diffusion.coarse(large, 2), large)
    assert float(large.std()) == pytest.approx(1, abs=0.05)
    small = model.noise[SMALL].float()[None]
    assert not torch.equal(diffusion.coarse(small, 2), small)


def test_the_network_sees_the_large_step_at_half_the_side(
    model: DiffusionAD, images: torch.Tensor
) -> None:
    seen: list[tuple[int, int]] = []
    hook = model.noise_network.register_forward_hook(
        lambda _, arguments, output: seen.append((arguments[0].shape[-1], int(arguments[1][0])))
    )
    NoisePrediction(model)(images)
    hook.remove()
    guidance = model.config.guidance
    assert sorted(seen) == [(32, guidance.large_step), (64, guidance.small_step)]


def test_equations_6_to_8_give_the_guided_image_from_what_is_served(
    model: DiffusionAD, images: torch.Tensor
) -> None:
    with torch.no_grad():
        noisy, predicted = NoisePrediction(model)(images)
        reconstruction, _ = Reconstruction(model)(noisy, predicted)
        guidance = model.config.guidance
        steps = torch.tensor([guidance.small_step, guidance.large_step])
        alpha_bar = model.alpha_bar_at(steps)
        x0_s, x0_b = (
            diffusion.predict_x0(noisy[:, s], predicted[:, s], alpha_bar[s]) for s in (SMALL, LARGE)
        )
        reduced = diffusion.reduced(noisy[:, LARGE], 2)
        t_b = steps[LARGE].expand(3)
        own = diffusion.enlarged(model.estimate(reduced, t_b).x0, 2)
    torch.testing.assert_close(x0_b, own, atol=1e-4, rtol=1e-4)
    pull = guidance.weight * (1 - alpha_bar[SMALL])
    expected = (x0_s + pull * (x0_b.clamp(-1, 1) - x0_s)).clamp(-1, 1)
    torch.testing.assert_close(reconstruction, expected, atol=1e-4, rtol=1e-4)


def test_training_reaches_the_network_through_both_scales(config: Config) -> None:
    module = TrainingModule(config, seed=0)
    noise_loss, mask_loss = module.joint_loss(blank_batch(config))
    (noise_loss + mask_loss).backward()
    assert all(p.grad is not None for p in module.model.noise_network.parameters())


def test_windows_leave_the_large_step_the_whole_image(config: Config) -> None:
    module = TrainingModule(config, seed=0)
    seen: list[int] = []
    module.model.noise_network.register_forward_hook(
        lambda _, arguments, output: seen.append(arguments[0].shape[-1])
    )
    batch = blank_batch(config)
    batch["side"] = torch.tensor(48)
    batch["corners"] = torch.tensor([[0, 16]] * len(batch["images"]))
    for loss in module.joint_loss(batch):
        assert torch.isfinite(loss)
    assert sorted(seen) == [32, 48]


@pytest.mark.parametrize("left_to_guidance", [False, True])
def test_components_can_be_left_to_the_large_step(
    config: Config, monkeypatch: pytest.MonkeyPatch, left_to_guidance: bool
) -> None:
    settings = {
        "loss.components_at_large_step": left_to_guidance,
        "loss.restoration_weight": 1.0,
        "noise_network.parametrisation": "x0",
        "guidance.large_reduction": 1,
    }
    config = changed(config, settings)
    model = DiffusionAD(config.detector)
    x0 = torch.zeros(2, 3, 64, 64)
    images = TrainingImages(
        x0,
        x0 + 0.5,
        torch.ones(2, 1, 64, 64),
        anomalous=torch.tensor([True, True]),
        misplaced=torch.tensor([True, False]),
        corners=[(0, 0), (0, 0)],
        side=64,
    )

    def copy(x_t: torch.Tensor, t: torch.Tensor) -> Estimate:
        """A network that shows what is there, at both scales."""
        both = torch.cat([x0, x0])
        return Estimate(diffusion.noise_from_x0(x_t, both, model.alpha_bar_at(t)), both)

    errors: list[torch.Tensor] = []
    whole = losses.noise_loss
    monkeypatch.setattr(model, "estimate", copy)
    monkeypatch.setattr(
        losses, "noise_loss", lambda *given: (errors.extend(given[:2]), whole(*given))[1]
    )
    model.restoration.train(model, images, config.training.loss)
    small, large = ((error > 0).tolist() for error in errors)
    assert large == [True, True]
    assert small == [not left_to_guidance, True]


def test_it_costs_a_quarter_of_a_pass(config: Config, tiny_config: Config) -> None:
    whole, reduced = cost(tiny_config), cost(config)
    one = whole.noise_pass_flop
    assert whole.restoration_flop == 2 * one
    assert reduced.restoration_flop == pytest.approx(1.25 * one, rel=0.02)  # attention falls faster


@pytest.mark.long  # the first export of a process takes most of a minute
def test_what_is_exported_answers_as_torch_does(model: DiffusionAD, images: torch.Tensor) -> None:
    chain = GraphChain({step: export_step(model, step) for step in NETWORK_STEPS})
    with torch.no_grad():
        detection = model(images)
    for ours, served in zip(detection.score, chain.score(images.numpy()), strict=True):
        assert served.score == pytest.approx(float(ours), abs=1e-5)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"guidance.large_reduction": 0}, r"large_reduction \(0\) must be at least 1"),
        (
            {"guidance.large_reduction": 3},
            r"size \(64\) must be a multiple of 24, the stride of NoiseNetworkConfig, "
            "at 1/3 of the side",
        ),
    ],
)
def test_wrong_settings_are_named(tiny_config: Config, setting: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        changed(tiny_config, setting)
