"""How one model on one server has fared: whether to send it calls, and when to look again.

Pure but for the clock, which is handed in: seconds, monotonic.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffusionad_client.errors import DiffusionADError

FIRST_LOOK_S = 0.1  # after a failure, doubled with each that follows a look that found it ready
LONGEST_LOOK_S = 1.0
LOOK_AGAIN_S = 0.3  # at a server that is away
_TRIALS = 1  # calls at once to what came back, until one is answered


@dataclass
class Standing:
    """A circuit breaker: up, away, or on trial."""

    model: str
    away: DiffusionADError | None = None  # why no call is sent
    on_trial: bool = False  # it says that it is ready, but has not answered yet
    under_way: int = 0
    answered_at: float = float("-inf")
    look_at: float = 0.0  # when to look whether it is back
    failures: int = 0  # since it answered last

    @property
    def admits(self) -> bool:
        """Tell whether a call may be sent now."""
        if self.away is not None:
            return False
        return not self.on_trial or self.under_way < _TRIALS

    def answered(self, now: float) -> None:
        """Hear that it answered a call, be it that it refused it for good reason."""
        self.answered_at = now
        self.away, self.on_trial, self.failures = None, False, 0

    def left(self, why: DiffusionADError, now: float) -> bool:
        """Send it no calls until it is seen to be back; tell whether that is news."""
        if self.away is not None:  # another call had found out
            return False
        self.away = why
        self.on_trial = False
        wait = min(FIRST_LOOK_S * 2**self.failures, LONGEST_LOOK_S)
        self.look_at = now + wait
        self.failures += 1
        return True

    def seen_away(self, now: float) -> None:
        """Hear that it was asked, and is still away."""
        self.failures = 0  # nothing answered: it is not one that says ready and fails
        self.look_at = now + LOOK_AGAIN_S

    def came_back(self) -> None:
        """Hear that it says that it is ready."""
        self.away = None
        self.on_trial = True
