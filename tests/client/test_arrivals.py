"""Which files of a folder are complete, and that each of their states is taken once."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import wait_for

from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.errors import SourceError
from diffusionad_client.scoring import done
from diffusionad_client.scoring.done import Done, Judging
from diffusionad_client.scoring.row import Row
from diffusionad_client.watching.arrivals import RENAMED_S, Arrivals
from diffusionad_client.watching.lookout import Event, Lookout, Walk


class Told(Lookout):
    """A lookout that tells what the test says."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, poll_s=1.0, stop=threading.Event())
        self.events: deque[Event] = deque()
        self.names: deque[str | Walk] = deque()

    def event(self) -> Event | None:
        return self.events.popleft() if self.events else None

    def found(self) -> str | Walk | None:
        return self.names.popleft() if self.names else None

    def again(self, name: str) -> None:
        self.events.append(Event(name, is_new=False))


class Watch:
    """Arrivals in a folder, at a time that the test sets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told = Told(folder)
        self.now = 0.0
        self.arrivals = Arrivals(folder, self.told, settle_s=1.0, clock=lambda: self.now)
        self._given = iter(self.arrivals)

    def after(self, seconds: float) -> list[str]:
        """Give what is complete so much later."""
        self.now += seconds
        given = []
        while image := next(self._given).name:
            given.append(image)
        return given

    def write(self, name: str, content: str = "x") -> None:
        (self.folder / name).write_text(content)
        os.utime(self.folder / name, (1, self.now + len(content)))

    def event(self, name: str, *, is_new: bool = False) -> None:
        self.told.events.append(Event(name, is_new))

    def walk(self) -> None:
        names = sorted(path.name for path in self.folder.iterdir())
        self.told.names.extend([Walk.BEGINS, *names, Walk.ENDS])


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    return Watch(tmp_path)


def test_a_written_file_is_given_when_it_has_stood_still(watch: Watch) -> None:
    watch.write("a.png")
    watch.event("a.png", is_new=True)
    watch.event("a.png")  # it was opened
    assert watch.after(0) == []
    assert watch.after(0.9) == []
    watch.write("a.png", "more")
    assert watch.after(0.2) == []
    assert watch.after(0.9) == []
    assert watch.after(0.2) == ["a.png"]
    assert watch.after(9) == []


def test_a_renamed_file_is_given_at_once(watch: Watch) -> None:
    watch.write("a.png")
    watch.event("a.png", is_new=True)
    assert watch.after(RENAMED_S / 2) == []
    assert watch.after(RENAMED_S) == ["a.png"]


def test_an_empty_new_file_is_still_to_be_written(watch: Watch) -> None:
    watch.write("a.png", "")
    watch.event("a.png", is_new=True)
    assert watch.after(0) == []
    assert watch.after(0.5) == []
    assert watch.after(0.6) == ["a.png"]


def test_walks_find_what_no_event_told_of_and_give_it_once(watch: Watch) -> None:
    watch.write("a.png")
    watch.walk()
    assert watch.after(0) == []
    assert watch.after(1.1) == ["a.png"]
    watch.arrivals.release("a.png")
    for _ in range(3):
        watch.walk()
        assert watch.after(1.1) == []
        assert watch.after(1.1) == []
    watch.write("a.png", "another")
    watch.walk()
    watch.after(0)
    assert watch.after(1.1) == ["a.png"]


def test_what_is_no_longer_there_is_forgotten(watch: Watch) -> None:
    for number in range(50):
        watch.write(f"{number}.png")
        watch.event(f"{number}.png", is_new=True)
        watch.after(0)
        assert watch.after(1.1) == [f"{number}.png"]
        watch.arrivals.release(f"{number}.png")
        (watch.folder / f"{number}.png").unlink()
        watch.walk()
        watch.after(0)
    assert len(watch.arrivals._taken | watch.arrivals._taken_before) <= 1


def test_a_name_is_not_given_again_while_it_is_under_way(watch: Watch) -> None:
    watch.write("a.png")
    watch.event("a.png", is_new=True)
    watch.after(0)
    assert watch.after(1.1) == ["a.png"]
    watch.write("a.png", "another")
    watch.event("a.png", is_new=True)
    assert watch.after(5) == []
    assert watch.arrivals.is_as_given("a.png") is False
    watch.arrivals.release("a.png")
    assert watch.after(1.1) == ["a.png"]


def test_what_changed_while_it_was_under_way_comes_again_without_an_event(watch: Watch) -> None:
    watch.write("a.png")
    watch.event("a.png", is_new=True)
    watch.after(0)
    assert watch.after(1.1) == ["a.png"]
    watch.write("a.png", "another")
    watch.arrivals.release("a.png", again=True, at_once=True)
    watch.after(0)
    assert watch.after(1.1) == ["a.png"]
    (watch.folder / "a.png").unlink()
    assert watch.arrivals.is_as_given("a.png") is None


def test_what_comes_now_waits_for_few_of_those_that_were_there_before(watch: Watch) -> None:
    for number in range(600):
        watch.write(f"old-{number:03}.png")
    watch.walk()
    assert watch.after(0) == []
    watch.write("new.png")
    watch.event("new.png", is_new=True)
    given = watch.after(1.1) + watch.after(1.1)
    assert "new.png" in given[:300]
    while more := watch.after(1.1):
        given += more
    assert len(given) == len(set(given)) == 601


def test_a_folder_that_is_away_is_said_once_and_searched_again(tmp_path: Path) -> None:
    said: list[str] = []
    stop = threading.Event()
    folder = tmp_path / "share"
    lookout = Lookout(folder, poll_s=0.02, stop=stop, notice=said.append)
    lookout.start()
    for _ in range(2):
        wait_for(lambda: lookout.found() is Walk.ENDS)
    folder.mkdir()
    (folder / "a.png").touch()
    wait_for(lambda: lookout.found() == "a.png")
    stop.set()
    assert len(said) == 1
    assert "cannot be searched" in said[0]


def test_a_folder_that_the_system_does_not_tell_of_is_said(tmp_path: Path) -> None:
    lookout = Lookout(tmp_path / "none", stop=threading.Event())
    with pytest.raises(SourceError, match="no longer there"):
        lookout.start()


NAMES = st.sampled_from(["a", "b", "c", "d"])
ROWS = st.builds(
    lambda image, sha256, verdict: Row(
        image=image,
        sha256=sha256,
        verdict=verdict,
        error_type=None if verdict else "ImageError",
        release="r",
        accept=0.3,
        reject=0.6,
        settings="s",
    ),
    NAMES,
    st.sampled_from(["1", "2"]),
    st.sampled_from(["OK", "NG", None]),
)


@settings(max_examples=50, deadline=None)
@given(before=st.lists(ROWS, max_size=6, unique_by=lambda row: row.image), added=st.lists(ROWS))
def test_rows_that_are_added_are_known_like_those_that_were_read(
    before: list[Row], added: list[Row]
) -> None:
    last = {row.image: row for row in [*before, *added]}
    read = Done.of(last.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(done, "_JOINED_AT", 3)
        grown = Done.of(before)
        for row in added:
            grown.add(row)
    judging = Judging("r", Thresholds(accept=0.3, reject=0.6), "s")
    for name in ("a", "b", "c", "d"):
        assert grown.state(name) == read.state(name)
        for sha256 in ("1", "2", None):
            covered = [
                judging.covers(each.see(name), name, sha256=sha256) for each in (grown, read)
            ]
            assert covered[0] == covered[1]
