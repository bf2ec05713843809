"""Errors of the training side, under the client's base class."""

from __future__ import annotations

from diffusionad_client.errors import DiffusionADError


class ConfigError(DiffusionADError):
    """A setting is out of range or does not fit another."""


class DataError(DiffusionADError):
    """The training or test images are missing, too few or unreadable."""


class CheckpointError(DiffusionADError):
    """A run folder is incomplete or does not fit this version."""


class TrainingError(DiffusionADError):
    """Training cannot go on, for example because a loss is no longer a number."""


class ExportError(DiffusionADError):
    """The exported graphs do not do what the trained model does."""


class RoiError(DiffusionADError):
    """A region of interest cannot be read, is too small, or is not the detector's."""


class PretrainedError(DiffusionADError):
    """Weights that come with a package are missing, damaged or of another version."""
