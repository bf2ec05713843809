"""What came in, and which calls a fault is for. Threads may share a log and a plan."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Condition, Lock
from typing import Any

from diffusionad_client.testing.faults import Fault, Refusal


@dataclass(frozen=True)
class Received:
    """A call as it came in. What follows `model` is of requests for images, without pixels."""

    method: str  # Triton's, such as ModelInfer
    headers: Mapping[str, str]  # gRPC metadata
    at: float  # time.monotonic()
    model: str = ""
    request_id: str = ""
    priority: int = 0
    timeout_s: float = 0.0  # as the server was told of it
    outputs: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()


def received(method: str, request: Any, headers: Mapping[str, str]) -> Received:
    """Write down a call."""
    now = time.monotonic()
    if method != "ModelInfer":
        name = getattr(request, "model_name", "") or getattr(request, "name", "")
        return Received(method, headers, now, name)
    sent = request.parameters
    return Received(
        method,
        headers,
        now,
        model=request.model_name,
        request_id=request.id,
        priority=sent["priority"].uint64_param if "priority" in sent else 0,
        timeout_s=sent["timeout"].int64_param / 1e6 if "timeout" in sent else 0.0,
        outputs=tuple(output.name for output in request.outputs),
        shape=tuple(request.inputs[0].shape) if request.inputs else (),
    )


class Log:
    """Counts calls, and remembers the last requests for images."""

    def __init__(self, keep: int) -> None:
        self.counts: Counter[str] = Counter()
        self.requests: deque[Received] = deque(maxlen=keep)
        self.under_way = 0
        self._lock = Lock()

    def begin(self, call: Received) -> None:
        """Note that a call came."""
        with self._lock:
            self.counts[call.method] += 1
            if call.method == "ModelInfer":
                self.requests.append(call)
                self.under_way += 1

    def end(self, call: Received) -> None:
        """Note that a call is answered, or given up."""
        if call.method == "ModelInfer":
            with self._lock:
                self.under_way -= 1


@dataclass(eq=False)
class Planned:
    """A fault that is on: for a number of calls, until a time, or until it is lifted."""

    fault: Fault | Refusal
    methods: frozenset[str]
    model: str | None
    left: int | None
    until: float | None  # time.monotonic()
    lifted: bool = False

    @property
    def over(self) -> bool:
        """Tell whether it is no longer on."""
        return self.lifted or (self.until is not None and time.monotonic() >= self.until)


class FaultPlan:
    """The faults that are on; of several that fit a call, the one planned first is met."""

    def __init__(self) -> None:
        self._planned: list[Planned] = []
        self._hanging: list[Planned] = []  # faults that calls hang in
        self._changed = Condition()

    def add(self, planned: Planned) -> None:
        """Turn a fault on."""
        with self._changed:
            self._planned.append(planned)

    def lift(self, planned: Planned | None = None) -> None:
        """Lift one fault, or all; calls that hang in it are answered."""
        with self._changed:
            every = [*self._planned, *self._hanging]
            for each in every if planned is None else [planned]:
                each.lifted = True
            self._planned = [each for each in self._planned if not each.over]
            self._changed.notify_all()

    def meet(self, call: Received) -> Planned | None:
        """Give the fault that a call meets, and count it."""
        with self._changed:
            self._planned = [each for each in self._planned if not each.over]
            for planned in self._planned:
                if call.method not in planned.methods or planned.model not in (None, call.model):
                    continue
                if planned.left is not None:
                    planned.left -= 1
                    if planned.left <= 0:
                        self._planned.remove(planned)
                return planned
        return None

    def hang(self, planned: Planned, waited_for: Callable[[], bool]) -> None:
        """Return when a fault is over, or nobody waits for the call any more."""
        with self._changed:
            self._hanging.append(planned)
            while waited_for() and not planned.over:
                left = None if planned.until is None else planned.until - time.monotonic()
                self._changed.wait(left if left is None else max(left, 0))
            self._hanging.remove(planned)

    def pause(self, seconds: float, waited_for: Callable[[], bool]) -> None:
        """Return after some seconds, or when nobody waits for the call any more."""
        with self._changed:
            self._changed.wait_for(lambda: not waited_for(), seconds)

    def wake(self) -> None:
        """Look again at which calls are waited for."""
        with self._changed:
            self._changed.notify_all()
