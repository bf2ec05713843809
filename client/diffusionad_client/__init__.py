"""Score images against DiffusionAD models on Triton.

    from diffusionad_client import Client

    inspection = Client("127.0.0.1:8001").inspect("part.png")
    print(inspection.verdict, inspection.score)

The names below are loaded when they are first used, so that commands which
need none of them start at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusionad_client.artifacts.metadata import ReleaseMetadata, Thresholds, Verdict
    from diffusionad_client.contract import Priority
    from diffusionad_client.errors import (
        AccessDeniedError,
        AddressError,
        AdminKeyError,
        ArgumentError,
        BundleError,
        CalibrationError,
        CallCancelledError,
        CategoryNameError,
        ContractError,
        CredentialsError,
        DeadlineExceededError,
        DiffusionADError,
        EngineError,
        ImageError,
        InferenceError,
        MetadataError,
        ModelLoadError,
        ModelNotFoundError,
        OutputError,
        ReportError,
        ServeError,
        ServerBusyError,
        ServerGoneError,
        ServerUnavailableError,
        SourceError,
        TLSError,
        TooManyFailuresError,
    )
    from diffusionad_client.sdk.async_client import AsyncClient
    from diffusionad_client.sdk.catalogue import Catalogue, IdleModel, RefusedModel
    from diffusionad_client.sdk.client import Client
    from diffusionad_client.sdk.connection import Connection
    from diffusionad_client.sdk.health import Health, ServerHealth
    from diffusionad_client.sdk.inspection import Inspection, Timings
    from diffusionad_client.sdk.probe import Probe
    from diffusionad_client.sdk.regions import Region
    from diffusionad_client.sdk.served import ServedModel
    from diffusionad_client.sdk.stats import Latencies, ServerStats, Stats
    from diffusionad_client.sdk.streams import Outcome

__version__ = "0.1.0"

__all__ = [
    "AccessDeniedError",
    "AddressError",
    "AdminKeyError",
    "ArgumentError",
    "AsyncClient",
    "BundleError",
    "CalibrationError",
    "CallCancelledError",
    "Catalogue",
    "CategoryNameError",
    "Client",
    "Connection",
    "ContractError",
    "CredentialsError",
    "DeadlineExceededError",
    "DiffusionADError",
    "EngineError",
    "Health",
    "IdleModel",
    "ImageError",
    "InferenceError",
    "Inspection",
    "Latencies",
    "MetadataError",
    "ModelLoadError",
    "ModelNotFoundError",
    "Outcome",
    "OutputError",
    "Priority",
    "Probe",
    "RefusedModel",
    "Region",
    "ReleaseMetadata",
    "ReportError",
    "ServeError",
    "ServedModel",
    "ServerHealth",
    "ServerStats",
    "Stats",
    "ServerBusyError",
    "ServerGoneError",
    "ServerUnavailableError",
    "SourceError",
    "TLSError",
    "TooManyFailuresError",
    "Thresholds",
    "Timings",
    "Verdict",
]

_HOMES = {
    "Catalogue": "sdk.catalogue",
    "AsyncClient": "sdk.async_client",
    "Client": "sdk.client",
    "Connection": "sdk.connection",
    "Health": "sdk.health",
    "IdleModel": "sdk.catalogue",
    "Inspection": "sdk.inspection",
    "Priority": "contract",
    "Latencies": "sdk.stats",
    "Outcome": "sdk.streams",
    "Probe": "sdk.probe",
    "RefusedModel": "sdk.catalogue",
    "Region": "sdk.regions",
    "ReleaseMetadata": "artifacts.metadata",
    "ServedModel": "sdk.served",
    "ServerHealth": "sdk.health",
    "ServerStats": "sdk.stats",
    "Stats": "sdk.stats",
    "Thresholds": "artifacts.metadata",
    "Timings": "sdk.inspection",
    "Verdict": "artifacts.metadata",
}  # every other public name is an error


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
