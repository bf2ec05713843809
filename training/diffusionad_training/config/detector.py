"""What a detector is: how it restores, its schedule, its noise scales and its two networks.

All that weights and exported graphs depend on. How they are come by is in training.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from diffusionad_client.contract import FULL_DEPTH
from diffusionad_client.pixels import DEPTHS
from diffusionad_training.config.checks import require

Parametrisation = Literal["epsilon", "x0"]
PARAMETRISATIONS: tuple[str, ...] = get_args(Parametrisation)

RestorationName = Literal["diffusion", "autoencoder"]
RESTORATIONS: tuple[str, ...] = get_args(RestorationName)


Backbone = Literal["none", "efficientnet-lite0"]
BACKBONES: tuple[str, ...] = get_args(Backbone)


MEMORY_STRIDE = 8  # of a memory's patches, in pixels of what the backbone sees


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The linear noise schedule of Eq. 1. Steps count from 0."""

    steps: int = 1000  # T: entries of the table
    beta_first: float = 1e-4  # variance of the noise that the first step adds
    beta_last: float = 1e-2  # of the last: more hides more of a defect at the same step

    def __post_init__(self) -> None:
        require(self.steps >= 2, f"steps ({self.steps}) must be at least 2")
        require(
            0 < self.beta_first <= self.beta_last < 1,
            f"betas must satisfy 0 < beta_first ({self.beta_first}) <= beta_last "
            f"({self.beta_last}) < 1",
        )


@dataclass(frozen=True, kw_only=True)
class GuidanceConfig:
    """The two noise scales of norm guidance (Sec. 4.2). Steps count from 0."""

    small_step: int = 200  # t_s at inference: keeps detail, leaves large defects standing
    large_step: int = 400  # t_b at inference: erases large defects, loses detail
    # w of Eq. 7: pull towards the large-step estimate. At 0 that has no say, and the large step
    # is neither trained nor computed: the one-step denoising of the paper's Table 3, at t_s.
    weight: float = 1.0
    tau: int = 300  # training draws t_s from {0..tau}, t_b from {tau+1..last_step}
    last_step: int = 999  # the largest t_b in training
    # Beyond the paper: training draws t_s and t_b within so many steps of those of inference
    # instead, all that a small network has to know. 0 for the paper's ranges.
    spread: int = 0
    # Beyond the paper: the large step is computed on the image at 1/k of its side. At t_b noise
    # has eaten the fine detail anyway, and a pass at half the side is a quarter of the work.
    large_reduction: int = 1

    def __post_init__(self) -> None:
        require(
            0 <= self.small_step < self.large_step <= self.last_step,
            f"need 0 <= small_step ({self.small_step}) < large_step ({self.large_step}) "
            f"<= last_step ({self.last_step})",
        )
        require(
            0 <= self.tau < self.last_step,
            f"tau ({self.tau}) must lie in [0, last_step={self.last_step})",
        )
        require(self.weight >= 0, f"weight ({self.weight}) must not be negative")
        require(
            self.large_reduction >= 1,
            f"large_reduction ({self.large_reduction}) must be at least 1",
        )
        require(
            0 <= self.spread <= min(self.small_step, self.last_step - self.large_step),
            f"spread ({self.spread}) must not be negative, nor lead below step 0 or beyond "
            f"last_step ({self.last_step})",
        )

    @property
    def small_steps(self) -> range:
        """What training draws t_s from."""
        if self.spread:
            return range(self.small_step - self.spread, self.small_step + self.spread + 1)
        return range(self.tau + 1)

    @property
    def large_steps(self) -> range:
        """What training draws t_b from."""
        if self.spread:
            return range(self.large_step - self.spread, self.large_step + self.spread + 1)
        return range(self.tau + 1, self.last_step + 1)


@dataclass(frozen=True, kw_only=True)
class NoiseNetworkConfig:
    """The diffusion U-Net. Resolutions are those of its own feature maps."""

    base_channels: int = 128  # of the finest level
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)  # channels of each level, times the base
    blocks: int = 2  # residual blocks a level; one more on the way up
    attention_levels: tuple[int, ...] = (3, 4, 5)  # levels with attention; 0 is the finest
    heads: int = 4  # of each attention
    unshuffle: int = 1  # fold k x k pixels into channels before the first level
    parametrisation: Parametrisation = "epsilon"  # what the network outputs: the noise or the image
    # Of GroupNorm. A group of one channel forgets the brightness and contrast of the image:
    # a network with few channels needs fewer groups.
    groups: int = 32
    dropout: float = 0.0  # share of a block's values left out in training
    # Hand what each level saw on to the same level of the way up. Without, all must pass the
    # coarsest level, where a defect is harder to hide.
    skip_connections: bool = True
    # Compute each block again on the way back instead of keeping what it computed: about
    # a third more time for a fraction of the memory.
    recompute: bool = False

    def __post_init__(self) -> None:
        require(
            self.parametrisation in PARAMETRISATIONS,
            f"parametrisation must be one of {PARAMETRISATIONS}, not {self.parametrisation!r}",
        )
        require(
            self.groups >= 1 and self.base_channels % self.groups == 0,
            f"base_channels ({self.base_channels}) must be a multiple of groups ({self.groups})",
        )
        require(self.unshuffle >= 1, f"unshuffle ({self.unshuffle}) must be at least 1")
        levels = len(self.multipliers)
        require(
            levels >= 1 and min(self.multipliers) >= 1 and self.blocks >= 1,
            f"multipliers {self.multipliers} and blocks ({self.blocks}) must be at least 1",
        )
        require(
            self.heads >= 1 and self.base_channels % self.heads == 0,
            f"heads ({self.heads}) must divide base_channels ({self.base_channels})",
        )
        require(0 <= self.dropout < 1, f"dropout ({self.dropout}) must lie in [0, 1)")
        require(
            all(0 <= level < levels for level in self.attention_levels),
            f"attention_levels {self.attention_levels} must lie in [0, {levels})",
        )

    @property
    def stride(self) -> int:
        """The image's side must be a multiple of this many pixels."""
        return int(self.unshuffle * 2 ** (len(self.multipliers) - 1))


@dataclass(frozen=True, kw_only=True)
class SegmentationNetworkConfig:
    """The segmentation U-Net: input image and reconstruction in, anomaly map out."""

    widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512)  # channels of each level
    unshuffle: int = 1  # fold k x k pixels into channels before the first level

    def __post_init__(self) -> None:
        require(
            len(self.widths) >= 2 and min(self.widths) >= 1,
            f"widths {self.widths} must be two levels or more, of at least one channel",
        )
        require(self.unshuffle >= 1, f"unshuffle ({self.unshuffle}) must be at least 1")

    @property
    def strides(self) -> tuple[int, ...]:
        """Of its levels, pixels."""
        return tuple(self.unshuffle * 2**level for level in range(len(self.widths)))

    @property
    def stride(self) -> int:
        """The image's side must be a multiple of this many pixels."""
        return self.strides[-1]


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """Beyond the paper: what frozen features tell the segmentation network besides pixels."""

    backbone: Backbone = "none"  # trained on ImageNet by others; its weights stay as they are
    # Features of the reconstruction too, and how they differ from the image's.
    compare: bool = False
    enlarge: int = 1  # times the image's side that the backbone sees: small defects need more
    # Patches of good features that are remembered; the distance to the nearest is a feature of
    # its own. 0 for none.
    memory: int = 0

    def __post_init__(self) -> None:
        require(
            self.backbone in BACKBONES,
            f"backbone must be one of {BACKBONES}, not {self.backbone!r}",
        )
        require(self.enlarge in (1, 2), f"enlarge ({self.enlarge}) must be 1 or 2")
        require(self.memory >= 0, f"memory ({self.memory}) must not be negative")

    @property
    def memory_stride(self) -> int:
        """Of the memory's patches, pixels of the image."""
        return MEMORY_STRIDE // self.enlarge

    @property
    def is_on(self) -> bool:
        """Whether there are any."""
        return self.backbone != "none"

    @property
    def stride(self) -> int:
        """The image's side must be a multiple of this many pixels."""
        return 16 // self.enlarge if self.is_on else 1


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """A whole detector."""

    size: int = 256  # pixels; images are stretched to size x size
    depth: int = FULL_DEPTH  # bits of grey images of more than 8, where their files do not say it
    signed_range: bool = True  # pixels in [-1, 1] inside the model; [0, 1] otherwise
    # An autoencoder has the diffusion network's blocks without its skips and its noise: the
    # first row of the paper's Table 3, for measuring what diffusion brings. It is not served.
    restoration: RestorationName = "diffusion"
    # Beyond the paper: standard deviation, in pixels, of the Gaussian that the anomaly map is
    # smoothed with; 0 for none. The score is of the map as it was before.
    map_smoothing: float = 0.0
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    noise_network: NoiseNetworkConfig = field(default_factory=NoiseNetworkConfig)
    segmentation_network: SegmentationNetworkConfig = field(
        default_factory=SegmentationNetworkConfig
    )
    features: FeaturesConfig = field(default_factory=FeaturesConfig)

    def __post_init__(self) -> None:
        require(
            self.restoration in RESTORATIONS,
            f"restoration must be one of {RESTORATIONS}, not {self.restoration!r}",
        )
        require(
            self.depth in DEPTHS,
            f"depth must lie in {DEPTHS.start} to {DEPTHS.stop - 1} bits, not {self.depth!r}",
        )
        require(
            0 <= self.map_smoothing <= self.size / 8,
            f"map_smoothing ({self.map_smoothing}) must lie in [0, size / 8 = {self.size / 8:g}]",
        )
        require_multiple("size", self.size, self)
        require(self.size > 0, f"size ({self.size}) must be positive")
        require(
            self.guidance.last_step < self.schedule.steps,
            f"last_step ({self.guidance.last_step}) must lie below the schedule's "
            f"{self.schedule.steps} steps",
        )

        if self.features.is_on and self.features.memory:
            strides = self.segmentation_network.strides
            require(
                self.features.memory_stride in strides,
                f"the memory's stride ({self.features.memory_stride}) must be one of the "
                f"segmentation network's {strides}",
            )

    @property
    def strides(self) -> dict[str, int]:
        """What the side of an image or a window of one must be a multiple of, and why."""
        reduction = self.guidance.large_reduction if self.guidance.weight > 0 else 1
        reduced = f", at 1/{reduction} of the side" if reduction > 1 else ""
        return {
            f"NoiseNetworkConfig{reduced}": reduction * self.noise_network.stride,
            "SegmentationNetworkConfig": self.segmentation_network.stride,
            "FeaturesConfig": self.features.stride,
        }

    @property
    def stride(self) -> int:
        """The side of an image or a window of one must be a multiple of this many pixels."""
        return math.lcm(*self.strides.values())


def require_multiple(name: str, side: int, detector: DetectorConfig) -> None:
    """Raise a `ConfigError` if images with a side of so many pixels do not fit the networks."""
    for network, stride in detector.strides.items():
        require(
            side % stride == 0,
            f"{name} ({side}) must be a multiple of {stride}, the stride of {network}",
        )
