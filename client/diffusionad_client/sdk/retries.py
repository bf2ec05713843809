"""When a call is made again, and of whom: all of it stands here.

    what a server says                     what follows
    ------------------------------------   -------------------------------------------------
    no server answers, it stops or starts  another server at once; it is left until it is back
    no answer in this try's share          the same
    no such version now (a promotion)      the same, for that model alone
    its queue is full                      another server at once; else a pause
    no such category                       another server; an error if none has it
    anything else                          an error: asking again would give it again

`transports/errors.py` tells these apart. All of it happens inside the call's
deadline. A try that repeats another is paid for from a budget, unless the
server has answered somebody since: in an outage of all servers clients do not
multiply the load.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from threading import Lock
from typing import TypeVar

from diffusionad_client.errors import (
    AccessDeniedError,
    ContractError,
    DeadlineExceededError,
    DiffusionADError,
    InferenceError,
    ModelNotFoundError,
    ServerBusyError,
    ServerUnavailableError,
    TLSError,
)
from diffusionad_client.sdk.deadline import Deadline
from diffusionad_client.sdk.servers import Server, Servers
from diffusionad_client.sdk.steps import Pause, Steps

T = TypeVar("T")

FIRST_PAUSE_S = 0.1  # before a full queue is asked again; at most, and doubled each time
LONGEST_PAUSE_S = 2.0
_GATE_S = 0.1  # between two looks whether a server is back, at most
_SHARE = 0.5  # of what is left, for a try after which there is another server to ask

_log = logging.getLogger("diffusionad_client.sdk")


class Budget:
    """The repeated tries that a client may make: a bucket of tokens, shared by its calls."""

    RESERVE = 10.0
    PER_CALL = 0.1
    PER_SECOND = 1.0
    MOST = 100.0

    def __init__(self) -> None:
        self._tokens = self.RESERVE
        self._filled_at = time.monotonic()
        self._lock = Lock()

    def call(self) -> None:
        """Earn a part of a repeated try with a call."""
        with self._lock:
            self._tokens = min(self._tokens + self.PER_CALL, self.MOST)

    def spend(self) -> bool:
        """Pay for a repeated try; tell whether there was enough left."""
        with self._lock:
            now = time.monotonic()
            earned = (now - self._filled_at) * self.PER_SECOND
            self._filled_at = now
            self._tokens = max(self._tokens, min(self._tokens + earned, self.RESERVE))
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


def persist(
    attempt: Callable[[Server, Deadline], Steps[T]],
    *,
    servers: Servers,
    budget: Budget,
    deadline: Deadline,
    model: str | None,
    retry: bool = True,
    wait: bool = True,
    about: str = "a call",
) -> Steps[T]:
    """Try until a server has answered, or it is no use, or the time is up.

    `attempt` asks one server once, within its share of the deadline. `model`
    is what is asked for, if the call names it; `about` names the call in the
    log. A server or a model that was never reached is not waited for: more
    likely its address or its name is wrong. Without `wait` each server is asked
    once at most, without `retry` only one is.
    """
    key = model or ""
    tried: set[Server] = set()  # since the last pause
    failure: DiffusionADError | None = None
    failed_at = 0.0
    pauses = _pauses()
    yield from servers.begin(deadline)
    budget.call()
    while True:
        server = servers.choose(key, tried) or (None if retry and wait else servers.any())
        if server is None or not (
            failure is None or _is_proven(server, key, failure, failed_at) or budget.spend()
        ):
            failure = failure or servers.why_away(key)
            if not (servers.reached() and (failure.retryable or servers.any_away(key))):
                raise failure
            pause = random.uniform(0, _GATE_S)
        else:
            several = retry and servers.others(key, {*tried, server})
            share = deadline.share(_SHARE) if several else deadline
            started = time.monotonic()
            try:
                with servers.trying(server, key):
                    return (yield from attempt(server, share))
            except DiffusionADError as exc:
                _log.debug("%s: %s failed it: %s", about, server.url, str(exc))
                if not isinstance(exc, _OF_ONE_SERVER):
                    if isinstance(exc, _ANSWERS):
                        servers.heard_of(server, key)
                    raise
                if _is_away(exc) and not servers.answered_since(server, key, started):
                    servers.leave(server, key, exc)
                if isinstance(exc, DeadlineExceededError) and deadline.is_over:
                    if failure is None:
                        raise
                    raise failure from exc  # why it took so long, not that the last try did
                failure, failed_at = exc, time.monotonic()
                tried.add(server)
            if retry and servers.others(key, tried):
                continue
            passes = failure.retryable or servers.any_away(key)
            known = servers.reached(model if isinstance(failure, ModelNotFoundError) else None)
            if not (retry and wait and passes and known):
                raise failure
            tried.clear()
            busy = isinstance(failure, ServerBusyError)
            pause = next(pauses) if busy else random.uniform(0, _GATE_S)
        if not deadline.allows(pause):
            raise failure
        yield from servers.begin(deadline)
        yield Pause(pause)


# What another server may do better, or the same one in a while.
_OF_ONE_SERVER = (
    ServerUnavailableError,
    ServerBusyError,
    DeadlineExceededError,
    ModelNotFoundError,
    TLSError,
)

# What only a server that is there says.
_ANSWERS = (InferenceError, ContractError, AccessDeniedError)


def _is_away(exc: DiffusionADError) -> bool:
    """Tell whether a server, or a model on it, is to be left until it is seen to be back."""
    if isinstance(exc, DeadlineExceededError) and not exc.of_server:
        return False  # this machine took the time, over an image perhaps
    passes = exc.retryable and not isinstance(exc, ServerBusyError)
    return passes or isinstance(exc, TLSError)  # of a fleet, the others' certificates may be good


def _is_proven(server: Server, key: str, failure: DiffusionADError, failed_at: float) -> bool:
    """Tell whether a server has answered somebody since this call failed.

    That says nothing of the room in a queue that was full.
    """
    full = isinstance(failure, ServerBusyError)
    return server.standing(key).answered_at > failed_at and not full


def _pauses() -> Iterator[float]:
    """Yield the seconds to wait before each next try: at random, so that clients spread out."""
    longest = FIRST_PAUSE_S
    while True:
        yield random.uniform(0, longest)
        longest = min(2 * longest, LONGEST_PAUSE_S)
