"""When a category is loaded again: never while the server unloads something of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from diffusionad_client.errors import DeadlineExceededError
from diffusionad_client.sdk import deadline as clock
from diffusionad_client.sdk import threads
from diffusionad_client.sdk.deadline import Deadline
from diffusionad_client.sdk.settling import QUIET_S, load_when_settled
from diffusionad_client.sdk.threads import ThreadDriver
from diffusionad_client.sdk.transports.base import IndexEntry

READY = ("screw__segmentation", "READY")
GOING = ("screw__segmentation", "UNLOADING")
GONE = ("screw__segmentation", "UNAVAILABLE")


class Server:
    """Shows one list after the other, the last one for ever; notes when it is told to load."""

    def __init__(self, *lists: Sequence[tuple[str, str]]) -> None:
        self._lists: Iterator[Sequence[tuple[str, str]]] = itertools.chain(
            lists, itertools.repeat(lists[-1])
        )
        self.events: list[Any] = []

    def index(self, *, timeout: float) -> list[IndexEntry]:
        shown = next(self._lists)
        self.events.append([state for _, state in shown])
        return [IndexEntry(model, "1", state == "READY", state) for model, state in shown]

    def load(self, model: str, *, timeout: float) -> None:
        self.events.append(f"load {model}")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Lets time pass in no time."""
    passed: list[float] = []
    monkeypatch.setattr(threads.time, "sleep", passed.append)
    monkeypatch.setattr(clock.time, "monotonic", lambda: 1000 + sum(passed))
    return passed


def load(*lists: Sequence[tuple[str, str]], model: str = "screw", timeout: float = 60) -> list[Any]:
    server: Any = Server(*lists)
    ThreadDriver().run(load_when_settled(server, model, Deadline(timeout)))
    events: list[Any] = server.events
    return events


@pytest.mark.parametrize("shown", [[], [READY], [("screw", ""), ("screw__segmentation", "")]])
def test_what_nothing_was_unloaded_of_is_loaded_at_once(
    shown: list[tuple[str, str]], pauses: list[float]
) -> None:
    load(shown)
    assert pauses == []


def test_what_was_unloaded_a_moment_ago_perhaps_is_given_that_moment(pauses: list[float]) -> None:
    assert load([GONE]) == [["UNAVAILABLE"], ["UNAVAILABLE"], "load screw"]
    assert pauses == [QUIET_S]


@pytest.mark.parametrize("model", ["screw", "screw__encoded"])
def test_an_unload_under_way_is_waited_for_and_a_pause_more(
    model: str, pauses: list[float]
) -> None:
    events = load([GOING], [GOING], [GONE], model=model)
    going, gone = ["UNLOADING"], ["UNAVAILABLE"]
    assert events == [going, going, gone, gone, f"load {model}"]
    assert pauses == [QUIET_S] * 3


def test_an_unload_that_begins_during_the_pause_is_waited_for_too(pauses: list[float]) -> None:
    load([GONE], [GOING], [GONE])
    assert pauses == [QUIET_S] * 3


def test_decoders_belong_to_every_category_and_other_categories_do_not(pauses: list[float]) -> None:
    load([("screw-2__segmentation", "UNLOADING"), ("nut", "UNLOADING")])
    assert pauses == []
    load([("image_decoding_256", "UNLOADING")], [("image_decoding_256", "UNAVAILABLE")])
    assert pauses == [QUIET_S] * 2


def test_what_is_unloaded_for_too_long_is_named_and_nothing_is_loaded(pauses: list[float]) -> None:
    server: Any = Server([READY, GOING])
    with pytest.raises(DeadlineExceededError, match="still unloading screw__segmentation version"):
        ThreadDriver().run(load_when_settled(server, "screw", Deadline(5)))
    assert "load screw" not in server.events
    assert 4 < sum(pauses) <= 5


def test_too_little_time_for_the_pause_is_said(pauses: list[float]) -> None:
    with pytest.raises(DeadlineExceededError, match=r"allow more with timeout= or --timeout"):
        load([GONE], timeout=QUIET_S / 2)
