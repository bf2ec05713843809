"""Read the configs of runs that an older version wrote.

A config without a `schema_version` is of the first: one level of sections, detector and
training mixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusionad_training.config.checks import require

SCHEMA_VERSION = 2

_OF_DETECTOR = (
    "size",
    "depth",
    "signed_range",
    "restoration",
    "map_smoothing",
    "schedule",
    "guidance",
    "noise_network",
    "segmentation_network",
)
_OF_TRAINING = ("loss", "synthesis", "augmentation", "optimisation")

# Settings that have moved, by their old section and name: the new ones.
MOVED = {("noise_network", "snr_cap"): ("loss", "snr_cap")}

# Settings that are gone, for no preset used them, with the value at which they did nothing.
# None of them matters to a trained detector.
_GONE = {
    ("synthesis", "finish_share"): 0,
    ("synthesis", "area_share"): 0,
}


def migrated(document: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a config's JSON to the newest schema, without its version.

    Raises `ConfigError` for a schema that is newer than this.
    """
    rest = dict(document)
    version = rest.pop("schema_version", 1)
    require(
        version in range(1, SCHEMA_VERSION + 1),
        f"the config has schema version {version!r}, and this version of diffusionad reads up to "
        f"{SCHEMA_VERSION}; use the version that wrote it, or a newer one",
    )
    return _in_halves(rest) if version == 1 else rest


def settings_gone(document: Mapping[str, Any]) -> list[str]:
    """The settings of a config's JSON that did something and exist no more, by their paths."""
    return [
        f"{section}.{name}"
        for (section, name), idle in _GONE.items()
        if isinstance(document.get(section), Mapping) and document[section].get(name, idle) != idle
    ]


def _in_halves(document: dict[str, Any]) -> dict[str, Any]:
    """From the first schema to the second."""
    sections = {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in document.items()
    }
    for section, name in _GONE:
        if isinstance(sections.get(section), dict):
            sections[section].pop(name, None)
    for (section, name), (new_section, new_name) in MOVED.items():
        old, new = sections.get(section), sections.setdefault(new_section, {})
        if isinstance(old, dict) and isinstance(new, dict) and name in old:
            new[new_name] = old.pop(name)
    halves: dict[str, dict[str, Any]] = {"detector": {}, "training": {}}
    for half, names in (("detector", _OF_DETECTOR), ("training", _OF_TRAINING)):
        halves[half] = {name: sections.pop(name) for name in names if name in sections}
    return {**sections, **halves}  # what is left but the preset is unknown, and said to be
