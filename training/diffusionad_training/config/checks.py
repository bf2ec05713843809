"""How a setting says that its value will not do."""

from __future__ import annotations

from diffusionad_training.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError` with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)
