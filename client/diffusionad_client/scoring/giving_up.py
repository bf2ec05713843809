"""When a run gives up: too many images in a row that failed by what is not theirs."""

from __future__ import annotations

import time

from diffusionad_client.errors import DiffusionADError, ServerGoneError
from diffusionad_client.scoring.row import Row
from diffusionad_client.scoring.score_one import NOT_THE_IMAGES

# So many in a row end the run, if what fails them cannot pass by itself or nothing has been
# answered for so long: a dead server must not turn a hundred thousand images into
# failures, one by one.
GIVE_UP_AFTER = 4
PATIENCE_S = 10.0


class Losses:
    """What came of the images so far, in their order."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._answered = False
        self._last_answer = time.monotonic()
        self._last: DiffusionADError | None = None

    def came(self, row: Row | None) -> None:
        """Hear of an image that was scored, failed by itself, or was done before (None)."""
        if row is not None and row.error_type is None:
            self._answered = True
            self._in_a_row = 0
            self._last_answer = time.monotonic()

    def failed(self, image: str, error: Exception) -> Row:
        """Make the row of an image that something else failed, or raise that, to give up."""
        if isinstance(error, ServerGoneError) or not isinstance(error, NOT_THE_IMAGES):
            raise error
        self._last = error
        self._in_a_row += 1
        may_pass = error.retryable and time.monotonic() - self._last_answer < PATIENCE_S
        if self._in_a_row >= GIVE_UP_AFTER and not may_pass:
            raise error
        return Row.failed(image, error)

    def end(self) -> None:
        """Raise the last failure if no image was ever answered."""
        if self._last is not None and not self._answered:
            raise self._last
