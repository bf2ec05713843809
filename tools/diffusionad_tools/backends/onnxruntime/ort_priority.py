"""Which model's process the cores go to first, where several want them.

Triton's `optimization { priority }` sets how nice the threads of a native
model are. Here a model is a process of its own, which has to do it itself.

Runs inside Triton's stub process: it imports nothing of ours but its neighbours.
"""

from __future__ import annotations

import os

from ort_signature import Json

NICE = {"PRIORITY_MAX": 0, "PRIORITY_DEFAULT": 5, "PRIORITY_MIN": 19}  # as Triton has them


def take_place(config: Json) -> None:
    """Make this thread, and those that it starts, as nice as the configuration says."""
    os.nice(NICE[config.get("optimization", {}).get("priority", "PRIORITY_DEFAULT")])
