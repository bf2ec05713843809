"""Hold good images out of training, whole groups at a time."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence


def hold_out(groups: Sequence[str], share: float, seed: int) -> list[int]:
    """Choose about `share` of the images, no group on both sides. Returns sorted indices.

    A group is passed over where it would overshoot by more than it fills. As
    long as there are two groups, each side gets one.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    order = sorted(members)
    random.Random(seed).shuffle(order)
    wanted = share * len(groups)
    held: list[int] = []
    for group in order[:-1]:
        if abs(len(held) + len(members[group]) - wanted) < abs(len(held) - wanted):
            held.extend(members[group])
    if not held and len(order) > 1:
        held = members[min(order, key=lambda group: len(members[group]))]
    return sorted(held)
