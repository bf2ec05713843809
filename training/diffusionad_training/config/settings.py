"""Change single settings of a config by their paths, as `train --set` does.

A setting's path is `loss.focal_gamma`; its half of the config, which no other setting of
that path is in, may stand before it: `training.loss.focal_gamma`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from diffusionad_training.config import Config
from diffusionad_training.config.migration import MOVED
from diffusionad_training.errors import ConfigError

HALVES = ("detector", "training")


def with_settings(config: Config, settings: Sequence[tuple[str, str]]) -> Config:
    """Change settings, each by its path, `loss.focal_gamma` say, to JSON or a bare word.

    Raises `ConfigError` for an unknown setting, a value of another kind than it
    holds, or values that do not fit each other.
    """
    document, original = (json.loads(config.to_json()) for _ in range(2))
    for path, value in settings:
        section, name = _place(document, path)
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError:
            parsed = value
        unchanged, _ = _place(original, path)
        before = unchanged[name]
        if not _same_kind(before, parsed):
            raise ConfigError(f"{path}: {value!r} is of another kind than {json.dumps(before)}")
        section[name] = parsed
    return Config.from_json(json.dumps(document))


def changed(config: Config, settings: Mapping[str, Any]) -> Config:
    """Change settings by their paths to Python values. Raises `ConfigError`."""
    document = json.loads(config.to_json())
    for path, value in settings.items():
        section, name = _place(document, path)
        section[name] = value
    return Config.from_json(json.dumps(document))


def differences(one: Config, other: Config) -> list[str]:
    """The paths of the settings in which two configs differ."""
    first, second = values(one), values(other)
    return [path for path in first | second if first.get(path) != second.get(path)]


def changes(one: Config, other: Config) -> dict[str, Any]:
    """What another config has otherwise, by the paths of the settings."""
    there = values(other)
    return {path: there[path] for path in differences(one, other)}


def values(config: Config) -> dict[str, Any]:
    """Every setting by its path, in JSON's types."""
    return _values(json.loads(config.to_json()))


def _place(document: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """Find the section that holds a setting, and the setting's name there."""
    if path == "preset":
        return document, path
    first, *rest = path.split(".")
    *sections, name = rest if rest and first in HALVES else (first, *rest)
    *sections, name = MOVED.get((".".join(sections), name), (*sections, name))
    for half in [first] if first in HALVES else HALVES:
        section: Any = document[half]
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict) and not isinstance(section.get(name, {}), dict):
            return section, name
    raise ConfigError(f"no setting {path!r}; there are {', '.join(_values(document))}")


def _values(document: dict[str, Any]) -> dict[str, Any]:
    """Every setting of a config's JSON by its path."""
    by_path: dict[str, Any] = {"preset": document["preset"]}
    for half in HALVES:
        by_path |= _flat(document[half])
    return by_path


def _flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    by_path: dict[str, Any] = {}
    for name, value in section.items():
        path = prefix + name
        by_path |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return by_path


def _same_kind(before: Any, now: Any) -> bool:
    """Whether a JSON value may stand where another stood: an integer may for a float."""
    if isinstance(before, list) and isinstance(now, list):
        return not before or all(_same_kind(before[0], one) for one in now)
    if isinstance(before, float) and type(now) is int:
        return True
    return type(before) is type(now)
