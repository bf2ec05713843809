"""The end of one call of the SDK, shared by every request the call has to make."""

from __future__ import annotations

import time
from numbers import Real

from diffusionad_client.errors import ArgumentError, DeadlineExceededError, shown

MORE_TIME = "allow more with timeout= or --timeout"


# A year: what a thread can wait for is bounded, and nobody means more.
LONGEST_S = 366 * 86400.0


def check_timeout(timeout: float) -> float:
    """Return `timeout` if it is a number of seconds to wait; raise `ArgumentError` otherwise."""
    number = isinstance(timeout, Real) and not isinstance(timeout, bool)
    if not number or not 0 < timeout <= LONGEST_S:
        raise ArgumentError(
            "a timeout must be a positive number of seconds, at most a year, not "
            f"{shown(timeout)}; such as timeout=30"
        )
    return float(timeout)


class Deadline:
    """`timeout` seconds from now."""

    def __init__(self, timeout: float) -> None:
        self._timeout = check_timeout(timeout)
        self._end = time.monotonic() + self._timeout

    def left(self) -> float:
        """Seconds for the next request. Raises `DeadlineExceededError` when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise DeadlineExceededError(
                f"{self._timeout:g} s were over before the next request; {MORE_TIME}"
            )
        return left

    def allows(self, seconds: float) -> bool:
        """Tell whether there is time left after `seconds` more."""
        return time.monotonic() + seconds < self._end
