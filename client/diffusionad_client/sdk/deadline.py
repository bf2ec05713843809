"""The end of one call of the SDK, shared by every request the call has to make."""

from __future__ import annotations

import copy
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

    def share(self, part: float) -> Deadline:
        """Give a part of what is left, of (0, 1], for one try of several."""
        share = copy.copy(self)
        now = time.monotonic()
        share._end = now + max(0.0, self._end - now) * part
        return share

    def left(self) -> float:
        """Seconds for the next request. Raises `DeadlineExceededError` when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            error = DeadlineExceededError(
                f"{self._timeout:g} s were over before the next request; {MORE_TIME}"
            )
            error.of_server = False
            raise error
        return left

    @property
    def is_over(self) -> bool:
        """Tell whether there is no time left."""
        return time.monotonic() >= self._end

    def allows(self, seconds: float) -> bool:
        """Tell whether there is time left after `seconds` more."""
        return time.monotonic() + seconds < self._end
