"""Change single settings of a config by their paths, as `train --set` does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from diffusionad_training.config import Config
from diffusionad_training.errors import ConfigError


def with_settings(config: Config, settings: Sequence[tuple[str, str]]) -> Config:
    """Change settings, each by its path, `loss.focal_gamma` say, to JSON or a bare word.

    Raises `ConfigError` for an unknown setting, a value of another kind than it
    holds, or values that do not fit each other.
    """
    document = json.loads(config.to_json())
    for path, value in settings:
        _set(document, path, value)
    return Config.from_json(json.dumps(document))


def differences(one: Config, other: Config) -> list[str]:
    """The paths of the settings in which two configs differ."""
    first, second = values(one), values(other)
    return [path for path in first | second if first.get(path) != second.get(path)]


def values(config: Config) -> dict[str, Any]:
    """Every setting by its path, in JSON's types."""
    return _values(json.loads(config.to_json()))


def _set(document: dict[str, Any], path: str, value: str) -> None:
    *sections, name = path.split(".")
    section: Any = document
    for part in sections:
        section = section.get(part) if isinstance(section, dict) else None
    if not isinstance(section, dict) or name not in section or isinstance(section[name], dict):
        raise ConfigError(f"no setting {path!r}; there are {', '.join(_values(document))}")
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError:
        parsed = value
    before = section[name]
    if not _same_kind(before, parsed):
        raise ConfigError(f"{path}: {value!r} is of another kind than {json.dumps(before)}")
    section[name] = parsed


def _values(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every setting of a config's JSON by its path."""
    found: dict[str, Any] = {}
    for name, value in document.items():
        path = prefix + name
        found |= _values(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return found


def _same_kind(before: Any, now: Any) -> bool:
    """Whether a JSON value may stand where another stood: an integer may for a float."""
    if isinstance(before, list) and isinstance(now, list):
        return not before or all(_same_kind(before[0], one) for one in now)
    if isinstance(before, float) and type(now) is int:
        return True
    return type(before) is type(now)
