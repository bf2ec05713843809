"""Training on several devices of one machine, a process for each.

Lightning runs the command once more for every further device. All processes
read the same data and begin with the same weights; process r of N takes batches
r, r + N, r + 2N, ... and gradients are averaged, so that N devices learn what one
does that takes N batches a step. The first process alone writes, judges and reports.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import lightning
import torch

from diffusionad_training.errors import ConfigError

_RANK = "LOCAL_RANK"  # set by Lightning for the processes it starts
_ENVIRONMENT = (_RANK, "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def rank(devices: int) -> int:
    """Which of the processes this one is; 0 is the one that was started by hand."""
    return int(os.environ.get(_RANK, "0")) if devices > 1 else 0


def require(devices: int) -> None:
    """Check that there are as many devices. Raises `ConfigError`."""
    there = torch.cuda.device_count()
    if there and devices > there:
        raise ConfigError(f"{devices} devices were asked for; this machine has {there} GPUs")


@contextmanager
def processes(trainer: lightning.Trainer, devices: int) -> Iterator[None]:
    """Leave nothing of the other processes behind, however the training ends."""
    if devices == 1:
        yield
        return
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    if rank(devices) > 0:
        # A Ctrl-C reaches all. The first process saves and then ends the others: one that
        # went by itself would take it along in the middle of that.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    except BaseException:
        launcher = trainer.strategy.launcher
        if launcher is not None:  # the others would wait for this one's gradients
            launcher.kill(signal.SIGKILL)
        raise
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)  # a later training is to start processes anew
            else:
                os.environ[name] = value
