"""Hold good images out of training, whole groups at a time."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence


def hold_out(groups: Sequence[str], share: float, seed: int) -> list[int]:
    """Choose about `share` of the images, no group on both sides. Returns sorted indices.

    At least one group stays on each side as long as there are two.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    order = sorted(members)
    random.Random(seed).shuffle(order)
    wanted = round(share * len(groups))
    held: list[int] = []
    for group in order[:-1]:
        if held and len(held) >= wanted:
            break
        held.extend(members[group])
    return sorted(held)
