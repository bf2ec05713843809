"""The end of one call of the SDK, shared by every request the call has to make."""

from __future__ import annotations

import math
import time

from diffusionad_client.errors import DeadlineExceededError, DiffusionADError

MORE_TIME = "allow more with timeout= or --timeout"


class Deadline:
    """`timeout` seconds from now."""

    def __init__(self, timeout: float) -> None:
        if not (math.isfinite(timeout) and timeout > 0):
            raise DiffusionADError(f"a timeout must be a positive number of s, not {timeout}")
        self._timeout = timeout
        self._end = time.monotonic() + timeout

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
