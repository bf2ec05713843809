"""Every error that a user of DiffusionAD can meet, as one tree.

    DiffusionADError
    ├── ImageError                  an image cannot be read or has the wrong form
    ├── CategoryNameError           a name breaks the rule for categories
    ├── MetadataError               a release's metadata cannot be understood
    ├── BundleError                 a release bundle is incomplete or altered
    ├── CalibrationError            scores or rates cannot set thresholds
    ├── SourceError                 a folder, list or file of images cannot be used
    ├── OutputError                 results cannot be written, or would be overwritten
    ├── TooManyFailuresError        more images failed than a run was allowed
    ├── EngineError                 the machines that a run was to be done on cannot be used
    ├── ReportError                 a report cannot be made
    ├── ServeError                  an embedded server could not be started
    ├── ArgumentError               an argument is of the wrong kind, or out of range
    ├── AddressError                a server's address is not HOST:PORT
    ├── AdminKeyError               a server's admin key cannot be read, or is open to others
    ├── CredentialsError            a certificate, key, token or header cannot be used
    ├── TLSError                    client and server cannot agree on a secure connection
    ├── AccessDeniedError           the server does not open that call to this client
    ├── ModelNotFoundError          the server does not serve that category (retryable: not now)
    ├── ModelLoadError              the server could not load that category
    ├── ContractError               the server's model is not one of ours, or of another version
    ├── InferenceError              the server refused or failed a request
    ├── ServerUnavailableError      no server answered            (retryable)
    │   └── ServerGoneError         it went away in the middle of a run, for too long
    ├── ServerBusyError             the server's queue is full    (retryable)
    ├── DeadlineExceededError       no answer in time             (retryable)
    └── CallCancelledError          whoever asked waits for the answer no more

A message names the value, the place and the remedy. Training and tools add
subclasses of their own.
"""

from __future__ import annotations

_SHOWN = 60  # characters of a value


class DiffusionADError(Exception):
    """The base of all errors raised on purpose. `retryable`: may the same call succeed later?"""

    retryable = False


class ImageError(DiffusionADError):
    """An image could not be read, or an array is not (H, W, 3) uint8."""


class CategoryNameError(DiffusionADError):
    """A category's name breaks the rule of `contract.check_category`."""


class MetadataError(DiffusionADError):
    """A metadata document is not valid, or of a schema this client does not know."""


class BundleError(DiffusionADError):
    """A release bundle lacks a file, or a file is not the one that was exported."""


class CalibrationError(DiffusionADError):
    """The scores or rates given cannot set thresholds."""


class SourceError(DiffusionADError):
    """There is nothing to score where the user pointed."""


class OutputError(DiffusionADError):
    """Results cannot be written where the user asked, or others' results stand there."""


class TooManyFailuresError(DiffusionADError):
    """More images failed than the run was allowed; what it did is kept."""


class EngineError(DiffusionADError):
    """The machines that a run was to be done on cannot be reached, or were lost."""


class ReportError(DiffusionADError):
    """A report cannot be made from these results, or here."""


class ServeError(DiffusionADError):
    """An embedded Triton server could not be started, or stopped early."""


class ArgumentError(DiffusionADError):
    """An argument of the client's is of the wrong kind, or out of range."""


class AddressError(DiffusionADError):
    """A server's address is not of the form HOST:PORT, or no server is named."""


class AdminKeyError(DiffusionADError):
    """The file of an admin key is missing, malformed, or readable by others than its owner."""


class CredentialsError(DiffusionADError):
    """A certificate, key, token or header cannot be used, or not in plain text."""


class TLSError(DiffusionADError):
    """No secure connection to the server, or no plain one to it; the message says why."""


class AccessDeniedError(DiffusionADError):
    """The server, or the gateway before it, does not open that call to this client."""


class ModelNotFoundError(DiffusionADError):
    """The server answers, but does not serve the named category.

    `retryable` of one that it is about to serve: one that loads, or comes back after a restart.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.retryable = passing


class ModelLoadError(DiffusionADError):
    """The server was asked to load a model and could not; the message has its reason."""


class ContractError(DiffusionADError):
    """The served model's tensors or metadata are not what this client understands."""


class InferenceError(DiffusionADError):
    """The server received the request and failed it."""


class ServerUnavailableError(DiffusionADError):
    """No Triton server answered. Safe to retry: inference has no side effects."""

    retryable = True


class ServerGoneError(ServerUnavailableError):
    """The server went away in the middle of a run, and did not come back in time."""


class ServerBusyError(DiffusionADError):
    """The server's queue is full. Safe to retry after a pause."""

    retryable = True


class DeadlineExceededError(DiffusionADError):
    """The answer did not come in time; the server may still be working on it."""

    retryable = True
    of_server = True  # False: the time was over before a server was asked


class CallCancelledError(DiffusionADError):
    """The call was cancelled: the stream that it belongs to was left by its consumer."""


def shown(value: object) -> str:
    """Show a value in a message, but not all of a picture, nor fail on what cannot be shown."""
    try:
        text = repr(value)
    except Exception:  # a number of 5000 digits, or an object that is broken
        text = "what cannot be shown"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({type(value).__name__})"
