"""What the SDK decides, as steps without I/O, and what they ask of whoever drives them.

A decision (which server, which release, whether to ask again) is written once,
as a generator. It yields what it needs: a call, a pause, work that takes a
while. `threads.py` and `aio.py` do these things, the one by waiting in the
calling thread, the other on an event loop, and send back what came of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """Call a server. The call gives its answer, or on an event loop an awaitable of it."""

    call: Callable[[], Any]


@dataclass(frozen=True)
class LocalWork:
    """Do something that takes a while and waits for no server, such as to decode an image."""

    do: Callable[[], Any]


@dataclass(frozen=True)
class Resolve:
    """Look up a host's addresses, for `timeout` seconds at most; none if that fails."""

    host: str
    port: int
    timeout: float


@dataclass(frozen=True)
class Pause:
    """Wait for some seconds."""

    seconds: float


AT_ONCE = 16  # of the courses that are taken together


@dataclass(frozen=True)
class Together:
    """Take several courses at once, AT_ONCE of them; the answer is the list of theirs."""

    courses: Sequence[Steps[Any]]


@dataclass(frozen=True)
class Alongside:
    """Take a course in the background, unless one with that name is under way already."""

    name: str
    course: Callable[[], Steps[None]]


Step = Ask | LocalWork | Resolve | Pause | Together | Alongside
Steps = Generator[Step, Any, T]


def ask(call: Callable[[], T] | Callable[[], Awaitable[T]]) -> Steps[T]:
    """Have a call made, and give its answer."""
    answer: T = yield Ask(call)
    return answer


def work(do: Callable[[], T]) -> Steps[T]:
    """Have something done, and give its result."""
    result: T = yield LocalWork(do)
    return result


def together(courses: Sequence[Steps[T]]) -> Steps[list[T]]:
    """Take several courses at once, and give their results in the same order."""
    results: list[T] = yield Together(courses)
    return results
