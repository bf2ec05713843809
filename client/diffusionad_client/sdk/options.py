"""What holds for every call of a client, unless the call says otherwise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.contract import Priority
from diffusionad_client.sdk.arguments import check_flag, check_priority, check_thresholds
from diffusionad_client.sdk.connection import CALL_S
from diffusionad_client.sdk.deadline import check_timeout


@dataclass(frozen=True, kw_only=True)
class Options:
    """A client's own choices, checked. Raises `ArgumentError` or `CategoryNameError`."""

    model: str | None = None  # the category; None: the servers' only one
    timeout: float = CALL_S  # s, for all that one call asks
    thresholds: Thresholds | None = None  # None: those of the release
    priority: Priority = Priority.INLINE
    retry: bool = True

    def __post_init__(self) -> None:
        if self.model is not None:
            contract.check_category(self.model)
        object.__setattr__(self, "timeout", check_timeout(self.timeout))
        check_thresholds(self.thresholds)
        object.__setattr__(self, "priority", check_priority(self.priority))
        object.__setattr__(self, "retry", check_flag("retry", self.retry))

    def but(self, **changes: Any) -> Options:
        """Give the same with those changes that are not None."""
        given = {name: value for name, value in changes.items() if value is not None}
        return replace(self, **given) if given else self  # which is checked: calls ask each time
