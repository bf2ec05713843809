"""Which model's process the cores go to first, where several want them.

Triton's `optimization { priority }` sets how nice the threads of a native
model are. Here a model is a process of its own, which has to do it itself.

Runs inside Triton's stub process: it imports nothing of ours but its neighbours.
"""

from __future__ import annotations

import os
from contextlib import suppress

from ort_signature import Json

NICE = {"PRIORITY_MAX": 0, "PRIORITY_DEFAULT": 5, "PRIORITY_MIN": 19}  # as Triton has them


def take_place(config: Json) -> None:
    """Make this process as nice as the configuration says.

    Linux counts niceness by thread. All are told, and those that they start take after them: the
    stub's own share locks in memory with the one that computes, and with Triton.
    """
    nice = NICE[config.get("optimization", {}).get("priority", "PRIORITY_DEFAULT")]
    above = os.getpriority(os.PRIO_PROCESS, 0) + nice
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it has ended
            os.setpriority(os.PRIO_PROCESS, int(thread), above)
