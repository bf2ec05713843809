"""What a training says when one of the processes that make its batches is gone."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from diffusionad_training.errors import TrainingError

_TORCH_SAYS = "DataLoader worker (pid"  # "is killed by signal" or "exited unexpectedly"
_GONE = (errno.ENOENT, errno.ECONNREFUSED, errno.ECONNRESET)  # so its socket says


@contextmanager
def lost_processes(saved_step: Callable[[], int | None]) -> Iterator[None]:
    """Turn the loss of such a process into a `TrainingError` that says how to go on.

    Torch lets it out in one of two ways, by when it happens: as a `RuntimeError`, or as
    the bare error of a socket, which would be taken for a file that cannot be written.
    """
    try:
        yield
    except (RuntimeError, OSError, EOFError) as exc:
        if not _is_loss(exc):
            raise
        step = saved_step()
        how = "nothing was saved" if step is None else f"--resume goes on from step {step}"
        raise TrainingError(
            "a process that makes batches was ended by something else; if memory ran out, "
            f"give fewer --workers or a smaller --batch; {how}"
        ) from exc


def _is_loss(exc: Exception) -> bool:
    if isinstance(exc, OSError):
        return exc.errno in _GONE and exc.filename is None
    return isinstance(exc, EOFError) or _TORCH_SAYS in str(exc)
