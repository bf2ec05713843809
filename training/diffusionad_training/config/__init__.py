"""Every setting of a run, as frozen dataclasses that check themselves.

A config is stored as JSON in every run, and read back by `evaluate` and
`export`. Presets (presets.py) are objects of these classes.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_type_hints

from diffusionad_client.contract import FULL_DEPTH
from diffusionad_client.pixels import DEPTHS
from diffusionad_training.config.checks import require
from diffusionad_training.config.detector import (
    GuidanceConfig,
    NoiseNetworkConfig,
    ScheduleConfig,
    SegmentationNetworkConfig,
)
from diffusionad_training.config.training import (
    AugmentationConfig,
    LossConfig,
    OptimisationConfig,
    SynthesisConfig,
)
from diffusionad_training.errors import ConfigError

__all__ = [
    "AugmentationConfig",
    "Config",
    "GuidanceConfig",
    "LossConfig",
    "NoiseNetworkConfig",
    "OptimisationConfig",
    "ScheduleConfig",
    "SegmentationNetworkConfig",
    "SynthesisConfig",
]

Restoration = Literal["diffusion", "autoencoder"]
RESTORATIONS: tuple[str, ...] = get_args(Restoration)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run."""

    preset: str
    size: int = 256  # pixels; images are stretched to size x size
    depth: int = FULL_DEPTH  # bits of grey images of more than 8, where their files do not say it
    signed_range: bool = True  # pixels in [-1, 1] inside the model; [0, 1] otherwise
    # An autoencoder has the diffusion network's blocks without its skips and its noise: the
    # first row of the paper's Table 3, for measuring what diffusion brings. It is not served.
    restoration: Restoration = "diffusion"
    # Beyond the paper: standard deviation, in pixels, of the Gaussian that the anomaly map is
    # smoothed with; 0 for none. The score is of the map as it was before.
    map_smoothing: float = 0.0
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    noise_network: NoiseNetworkConfig = field(default_factory=NoiseNetworkConfig)
    segmentation_network: SegmentationNetworkConfig = field(
        default_factory=SegmentationNetworkConfig
    )
    loss: LossConfig = field(default_factory=LossConfig)
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimisation: OptimisationConfig = field(default_factory=OptimisationConfig)

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
        crop = self.optimisation.crop_side
        for network in (self.noise_network, self.segmentation_network):
            require(
                self.size > 0 and self.size % network.stride == 0,
                f"size ({self.size}) must be a positive multiple of {network.stride}, "
                f"the stride of {type(network).__name__}",
            )
            require(
                crop % network.stride == 0 and crop <= self.size,
                f"crop_side ({crop}) must be a multiple of {network.stride}, the stride of "
                f"{type(network).__name__}, and at most the size ({self.size})",
            )
        require(
            self.guidance.last_step < self.schedule.steps,
            f"last_step ({self.guidance.last_step}) must lie below the schedule's "
            f"{self.schedule.steps} steps",
        )

    @property
    def is_diffusion(self) -> bool:
        """Whether images are restored from noise, which is what is served."""
        return self.restoration == "diffusion"

    def to_json(self) -> str:
        """Render as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Read what `to_json` wrote. Raises `ConfigError` on anything unknown."""
        try:
            document = json.loads(text)
        except json.JSONDecodeError as exc:
            raise ConfigError(f"the config is not JSON: {exc}") from exc
        config: Config = _build(cls, document, "config")
        return config


def _build(cls: type[Any], document: Any, where: str) -> Any:
    """Make a config dataclass from parsed JSON, its nested ones included."""
    require(isinstance(document, dict), f"{where} must be an object, not {document!r}")
    hints = get_type_hints(cls)
    unknown = sorted(set(document) - set(hints))
    require(not unknown, f"{where}: unknown settings {unknown}; known: {sorted(hints)}")
    values: dict[str, Any] = {}
    for name, value in document.items():
        if dataclasses.is_dataclass(hints[name]):
            values[name] = _build(hints[name], value, f"{where}.{name}")
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    try:
        return cls(**values)
    except TypeError as exc:
        raise ConfigError(f"{where}: {exc}") from exc
