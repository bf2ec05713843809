"""Every setting of a run, as frozen dataclasses that check themselves.

A config has two halves: what the detector is, and how it is trained. It is stored as
JSON in every run, and read back by `evaluate` and `export`; runs of an older schema are
read too (migration.py). Presets (presets.py) are objects of these classes.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from diffusionad_training.config.checks import require
from diffusionad_training.config.detector import (
    DetectorConfig,
    FeaturesConfig,
    GuidanceConfig,
    NoiseNetworkConfig,
    ScheduleConfig,
    SegmentationNetworkConfig,
    require_multiple,
)
from diffusionad_training.config.migration import SCHEMA_VERSION, migrated
from diffusionad_training.config.training import (
    AugmentationConfig,
    LossConfig,
    OptimisationConfig,
    SynthesisConfig,
    TrainingConfig,
)
from diffusionad_training.errors import ConfigError

__all__ = [
    "AugmentationConfig",
    "Config",
    "DetectorConfig",
    "FeaturesConfig",
    "GuidanceConfig",
    "LossConfig",
    "NoiseNetworkConfig",
    "OptimisationConfig",
    "ScheduleConfig",
    "SegmentationNetworkConfig",
    "SynthesisConfig",
    "TrainingConfig",
]


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run: what is trained, and how."""

    preset: str
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        crop, size = self.training.optimisation.crop_side, self.detector.size
        require(crop <= size, f"crop_side ({crop}) must be at most the size ({size})")
        require_multiple("crop_side", crop, self.detector)

    def to_json(self) -> str:
        """Render as JSON."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Read what `to_json` wrote, or an older version's did.

        Raises `ConfigError` on anything unknown.
        """
        try:
            document = json.loads(text)
        except json.JSONDecodeError as exc:
            raise ConfigError(f"the config is not JSON: {exc}") from exc
        require(isinstance(document, dict), f"config must be an object, not {document!r}")
        config: Config = _build(cls, migrated(document), "config")
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
