"""Load a model only when the server is done with unloading what it had of it before.

A load that comes just as an earlier version of the same model goes away can
kill Triton, by signal 11 or 6: seen with 2.51, on busy machines; decision 25
says how. The server's list says when a version is being unloaded. It calls the
version unavailable a moment before it is safe, and says nothing of when that
was; hence the pause.
"""

from __future__ import annotations

from diffusionad_client import contract
from diffusionad_client.errors import DeadlineExceededError
from diffusionad_client.sdk.deadline import MORE_TIME, Deadline
from diffusionad_client.sdk.steps import Pause, Steps, ask
from diffusionad_client.sdk.transports.base import IndexEntry, Transport

QUIET_S = 0.5  # Triton needs some microseconds; a machine with too much to do, milliseconds
_GOING, _GONE = "UNLOADING", "UNAVAILABLE"  # Triton's states of a version


def load_when_settled(transport: Transport, model: str, deadline: Deadline) -> Steps[None]:
    """Load a category or its encoded form, once nothing of the category is being unloaded.

    Raises as the transport does, and `DeadlineExceededError` if unloading takes
    longer than the deadline allows, because requests are still under way perhaps.
    """
    yield from _settle(transport, model, deadline)
    yield from ask(lambda: transport.load(model, timeout=deadline.left()))


def _settle(transport: Transport, model: str, deadline: Deadline) -> Steps[None]:
    """Return when two looks, with the pause between them, have shown no unload under way."""
    quiet = False
    while True:
        index = yield from ask(lambda: transport.index(timeout=deadline.left()))
        entries = [entry for entry in index if _concerns(entry, model)]
        going = [entry for entry in entries if entry.state == _GOING]
        if not going and (quiet or all(entry.state != _GONE for entry in entries)):
            return
        if not deadline.allows(QUIET_S):
            raise DeadlineExceededError(_too_long(model, going))
        quiet = not going
        yield Pause(QUIET_S)


def _concerns(entry: IndexEntry, model: str) -> bool:
    """Tell whether a load of the model may load that one too: all of its category, and decoders."""
    category = model.partition("__")[0]
    return entry.model.partition("__")[0] == category or contract.is_decoding(entry.model)


def _too_long(model: str, going: list[IndexEntry]) -> str:
    if not going:
        return f"{model} is loaded {QUIET_S:g} s after an unload, which is too late; {MORE_TIME}"
    names = ", ".join(f"{entry.model} version {entry.version}" for entry in going)
    return (
        f"{model} was not loaded: the server is still unloading {names}, and a load at that "
        f"moment could kill it; {MORE_TIME}"
    )
