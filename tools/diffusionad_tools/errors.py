"""The errors that tools add to `diffusionad_client.errors`."""

from __future__ import annotations

from diffusionad_client.errors import DiffusionADError


class RepositoryError(DiffusionADError):
    """A model repository cannot be read, or holds what no release of ours would leave."""


class ReleaseError(DiffusionADError):
    """A release cannot be added to the repository."""


class SignatureError(ReleaseError):
    """A release is not signed by whom is trusted, or a key for that cannot be used."""


class GateError(ReleaseError):
    """A release's server does not give the answers that its training gave."""
