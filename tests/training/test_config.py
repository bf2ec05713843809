"""Configs check themselves and survive a round trip through JSON."""

import json

import pytest

from diffusionad_training.config import (
    AugmentationConfig,
    Config,
    GuidanceConfig,
    LossConfig,
    NoiseNetworkConfig,
    OptimisationConfig,
    ScheduleConfig,
    SegmentationNetworkConfig,
    SynthesisConfig,
)
from diffusionad_training.config.presets import EDGE, PAPER, PRESETS, STANDARD, customised
from diffusionad_training.config.settings import changed, with_settings
from diffusionad_training.errors import ConfigError


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_a_config_survives_json(config: Config) -> None:
    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GuidanceConfig(small_step=400, large_step=200), r"small_step \(400\)"),
        (lambda: GuidanceConfig(tau=999), r"tau \(999\)"),
        (lambda: GuidanceConfig(spread=201), r"spread \(201\)"),
        (lambda: GuidanceConfig(large_step=600, last_step=700, spread=101), r"spread \(101\)"),
        (lambda: GuidanceConfig(weight=-0.5), r"weight \(-0.5\)"),
        (lambda: NoiseNetworkConfig(parametrisation="v"), "'v'"),
        (lambda: NoiseNetworkConfig(base_channels=48), r"base_channels \(48\)"),
        (lambda: NoiseNetworkConfig(base_channels=64, groups=48), r"groups \(48\)"),
        (lambda: NoiseNetworkConfig(attention_levels=(6,)), r"attention_levels \(6,\)"),
        (lambda: ScheduleConfig(beta_first=0.1, beta_last=0.01), r"beta_first \(0.1\)"),
        (lambda: SynthesisConfig(opacity=(0.5, 1.0)), r"opacity \(0.5, 1.0\)"),
        (lambda: SynthesisConfig(texture_share=0, self_share=0), "must be positive"),
        (lambda: SynthesisConfig(relocation_share=1.5), r"relocation_share \(1.5\)"),
        (lambda: SynthesisConfig(patchy_share=1.5), r"patchy_share \(1.5\)"),
        (lambda: SynthesisConfig(surface_share=-0.5), r"surface_share \(-0.5\)"),
        (lambda: SynthesisConfig(visibility=-1), r"visibility \(-1\)"),
        (lambda: SynthesisConfig(soft_edge=-1), r"soft_edge \(-1\)"),
        (lambda: SynthesisConfig(grid=0), r"grid \(0\)"),
        (lambda: NoiseNetworkConfig(heads=3), r"heads \(3\) must divide"),
        (lambda: NoiseNetworkConfig(multipliers=()), "multipliers"),
        (lambda: NoiseNetworkConfig(dropout=1.0), r"dropout \(1.0\)"),
        (lambda: SegmentationNetworkConfig(widths=(8,)), r"widths \(8,\)"),
        (lambda: LossConfig(restoration_weight=-1), "must not be negative"),
        (lambda: LossConfig(anomaly_weight=0), r"anomaly_weight \(0\) must be positive"),
        (lambda: LossConfig(focal_alpha=2), r"focal_alpha \(2\)"),
        (lambda: AugmentationConfig(contrast=2), r"contrast \(2\)"),
        (lambda: OptimisationConfig(noise_learning_rate=0), "learning rates must be positive"),
        (lambda: OptimisationConfig(ema_decay=1.0), r"ema_decay \(1.0\)"),
        (lambda: OptimisationConfig(gradient_clip=-1.0), r"gradient_clip \(-1.0\)"),
        (lambda: OptimisationConfig(normal_per_batch=0), "at least one normal image"),
        (lambda: OptimisationConfig(segmentation_from=1), r"segmentation_from \(1\)"),
        (lambda: changed(EDGE, {"size": 100}), r"size \(100\) must be .* multiple of 64"),
        (lambda: changed(EDGE, {"restoration": "gan"}), "restoration must be one of"),
        (lambda: changed(PAPER, {"schedule.steps": 500}), "last_step"),
    ],
)
def test_a_setting_out_of_range_is_named(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_an_unknown_setting_is_refused_by_its_place() -> None:
    document = json.loads(EDGE.to_json())
    document["detector"]["guidance"]["smallstep"] = 3
    with pytest.raises(
        ConfigError, match=r"config\.detector\.guidance: unknown settings \['smallstep'\]"
    ):
        Config.from_json(json.dumps(document))


def test_the_paper_preset_follows_the_paper() -> None:
    assert PAPER.detector.schedule == ScheduleConfig(steps=1000, beta_first=1e-4, beta_last=1e-2)
    assert (PAPER.detector.guidance.small_step, PAPER.detector.guidance.large_step) == (200, 400)
    assert (PAPER.detector.guidance.weight, PAPER.detector.guidance.tau) == (1.0, 300)
    assert (
        PAPER.training.optimisation.normal_per_batch,
        PAPER.training.optimisation.synthetic_per_batch,
    ) == (8, 8)
    assert PAPER.training.optimisation.noise_learning_rate == 1e-4
    assert PAPER.training.loss.focal_weight == 5
    assert (PAPER.training.synthesis.texture_share, PAPER.training.synthesis.self_share) == (
        0.5,
        0.5,
    )
    assert PAPER.detector.noise_network.parametrisation == "epsilon"
    assert PAPER.training.optimisation.ema_decay == 0  # "We do not use EMA."
    assert PAPER.training.loss.restoration_weight == 0
    assert PAPER.training.synthesis.relocation_share == 0
    assert PAPER.training.synthesis.within_part


@pytest.mark.parametrize(
    ("preset", "batch", "normal"),
    [("paper", 7, 4), ("edge", 16, 4), ("edge", 7, 2), ("edge", 2, 1)],
)
def test_a_batch_has_the_preset_s_share_of_anomalies(preset: str, batch: int, normal: int) -> None:
    optimisation = customised(preset, batch=batch, with_textures=True).training.optimisation
    assert optimisation.normal_per_batch == normal
    assert optimisation.synthetic_per_batch == batch - normal


@pytest.mark.parametrize(("size", "side"), [(None, 128), (384, 192), (320, 128), (64, 0)])
def test_windows_keep_their_share_of_the_size(size: int | None, side: int) -> None:
    assert customised("edge", size=size, with_textures=True).training.optimisation.crop_side == side


def test_maps_are_smoothed_over_the_same_share_of_any_size() -> None:
    assert (
        customised("edge", size=512, with_textures=True).detector.map_smoothing
        == 2 * EDGE.detector.map_smoothing
    )
    assert PAPER.detector.map_smoothing == STANDARD.detector.map_smoothing == 0


def test_without_textures_their_share_goes_to_the_others() -> None:
    assert customised("edge", with_textures=False).training.synthesis.texture_share == 0
    assert customised("edge", with_textures=True) == EDGE


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("loss.focal_gamma", "2", 2),
        ("noise_network.attention_levels", "[]", ()),
        ("synthesis.opacity", "[0, 0.5]", (0, 0.5)),
        ("noise_network.parametrisation", "x0", "x0"),
        ("augmentation.flip", "true", True),
        ("restoration", "autoencoder", "autoencoder"),
    ],
)
def test_any_setting_can_be_changed_by_its_path(path: str, value: str, expected: object) -> None:
    found: object = with_settings(PAPER, [(path, value)])
    half = "detector" if hasattr(PAPER.detector, path.split(".")[0]) else "training"
    for name in (half, *path.split(".")):
        found = getattr(found, name)
    assert found == expected


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("loss.gamma", "2", r"no setting 'loss\.gamma'; there are .*loss\.focal_gamma"),
        ("loss", "2", "no setting 'loss'"),
        ("size.x", "2", r"no setting 'size\.x'"),
        ("loss.focal_gamma", "two", "'two' is of another kind"),
        ("size", "2.5", "'2.5' is of another kind"),
        ("augmentation.flip", "1", "'1' is of another kind"),
        ("noise_network.multipliers", "[1, true]", "is of another kind"),
        ("size", "100", r"size \(100\)"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(path: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_settings(EDGE, [(path, value)])


def test_settings_are_judged_together() -> None:
    settings = [("noise_network.multipliers", "[1, 2]"), ("noise_network.attention_levels", "[1]")]
    assert with_settings(PAPER, settings).detector.noise_network.multipliers == (1, 2)


def test_the_standard_preset_sees_as_many_images_a_step_as_the_paper() -> None:
    optimisation = STANDARD.training.optimisation
    batch = optimisation.normal_per_batch + optimisation.synthetic_per_batch
    assert batch * optimisation.accumulate == 16
    assert (
        STANDARD.detector.noise_network.base_channels
        == PAPER.detector.noise_network.base_channels // 2
    )
    assert STANDARD.detector.noise_network.parametrisation == "epsilon"
