"""How many images may fail before a run is given up."""

from __future__ import annotations

from dataclasses import dataclass

from diffusionad_client.errors import ArgumentError, TooManyFailuresError

_ENOUGH = 100  # images after which a share of those so far says something


@dataclass(frozen=True)
class FailureLimit:
    """So many images, or so many percent of them, may fail; None: all of them."""

    images: int | None = None
    percent: float | None = None

    @classmethod
    def parse(cls, text: str) -> FailureLimit:
        """Read "20" or "1.5%". Raises `ArgumentError`."""
        try:
            if text.endswith("%"):
                percent = float(text[:-1])
                if 0 <= percent <= 100:
                    return cls(percent=percent)
            elif int(text) >= 0:
                return cls(images=int(text))
        except ValueError:
            pass
        raise ArgumentError(f"{text!r}: not a number of images, such as 20, or a share, such as 1%")

    def check(self, failed: int, done: int, of: int | None) -> None:
        """Raise `TooManyFailuresError` if more than that failed.

        A share is of all images where their number is known, else of those
        done, from the hundredth on.
        """
        if self.images is not None and failed > self.images:
            raise TooManyFailuresError(
                f"{failed} images failed, more than the {self.images} of --max-failures"
            )
        if self.percent is not None and (of is not None or done >= _ENOUGH):
            whole = max(done, of or 0)
            if failed * 100 > self.percent * whole:
                raise TooManyFailuresError(
                    f"{failed} of {whole} images failed, more than the {self.percent:g} % of "
                    "--max-failures"
                )
