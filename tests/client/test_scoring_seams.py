"""Folder scoring's seams: any source, any sink, and a pure step between them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusionad_client import Client
from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.scoring import run
from diffusionad_client.scoring.beginning import Identity
from diffusionad_client.scoring.done import Done, Judging
from diffusionad_client.scoring.engines import Threads
from diffusionad_client.scoring.results import RunSummary
from diffusionad_client.scoring.row import Row
from diffusionad_client.scoring.score_one import Recipe, score_one
from diffusionad_client.scoring.scoring_run import ScoringRun
from diffusionad_client.scoring.settings import Settings
from diffusionad_client.scoring.sources import SourceImage


def png_file(red: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (red, 90, 90)).save(file, "PNG")
    return file.getvalue()


@dataclass
class Bucket:
    """A source that knows neither folders nor how many images it has."""

    files: dict[str, bytes]
    asked: list[str] = field(default_factory=list)
    root: str = "s3://line-1"
    count: int | None = None
    has_etags: bool = False

    def __iter__(self) -> Iterator[SourceImage]:
        for name, content in self.files.items():
            etag = hashlib.md5(content).hexdigest() if self.has_etags else None
            yield SourceImage(name, lambda name=name: self.read(name), etag)  # type: ignore[misc]

    def read(self, name: str) -> bytes:
        self.asked.append(name)
        return self.files[name]


@dataclass
class Table:
    """A sink that keeps everything in memory."""

    pictures: dict[str, bytes] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    summary: RunSummary | None = None
    unfinished: str = "the table"

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def put(self, name: str, content: bytes) -> None:
        self.pictures[name] = content

    def write(self, row: Row) -> None:
        self.rows.append(row)

    def finish(self, summary: RunSummary) -> None:
        self.summary = summary


@pytest.fixture
def client(triton: Any) -> Iterator[Client]:
    with Client(triton.url, "screw") as connected:
        yield connected


def test_images_from_anywhere_are_scored_into_anything(client: Client) -> None:
    source = Bucket({"a/1.png": png_file(20), "a/2.png": png_file(250), "b.png": b"no image"})
    table = Table()
    settings = Settings(output=Path("nowhere"))
    whole = ScoringRun(source=source, engine=Threads(inspect=client.inspect), settings=settings)
    summary = whole.finish(table, Identity("screw", source.root, "here", "2026-01-01"))
    assert [(row.image, row.verdict) for row in table.rows] == [
        ("a/1.png", "OK"),
        ("a/2.png", "NG"),
        ("b.png", None),
    ]
    assert set(table.pictures) == {
        *("heatmaps/a/1.png.png", "heatmaps/a/2.png.png"),
        *("reconstructions/a/1.png.jpg", "reconstructions/a/2.png.jpg"),
    }
    assert table.summary == summary
    assert (summary.root, summary.images, summary.failed) == ("s3://line-1", 3, 1)


@pytest.mark.parametrize("has_etags", [True, False])
def test_what_is_done_is_read_again_only_where_the_store_does_not_say_what_it_is(
    client: Client, has_etags: bool
) -> None:
    source = Bucket({"a.png": png_file(20), "b.png": b"no image"}, has_etags=has_etags)
    table, identity = Table(), Identity("screw", source.root, "here", "2026-01-01")
    judging = Judging("a" * 64, Thresholds(0.3, 0.6), Settings(output=Path()).digest)

    def go_on() -> None:
        source.asked.clear()
        whole = ScoringRun(
            source=source,
            engine=Threads(inspect=client.inspect),
            settings=Settings(output=Path()),
            judging=judging,
            done=Done.of(table.rows),
        )
        table.rows = []
        whole.finish(table, identity)

    go_on()
    first = table.rows
    assert source.asked == ["a.png", "b.png"]
    table.rows = first
    go_on()
    assert table.rows == []
    assert source.asked == ([] if has_etags else ["a.png", "b.png"])
    source.files["a.png"] = png_file(250)
    table.rows = first
    go_on()
    assert [(row.image, row.verdict) for row in table.rows] == [("a.png", "NG")]
    assert "a.png" in source.asked


def test_every_row_has_the_hash_of_its_file_whether_scored_or_not(client: Client) -> None:
    for content in (png_file(20), b"no image"):
        image = SourceImage("a.png", lambda content=content: content)  # type: ignore[misc]
        row = score_one(image, client.inspect, Recipe()).row
        assert row.sha256 == hashlib.sha256(content).hexdigest()


def test_scoring_one_image_twice_gives_the_same_row_and_pictures(client: Client) -> None:
    image = SourceImage("a.png", lambda: png_file(200))
    first, second = (score_one(image, client.inspect, Recipe()) for _ in range(2))
    assert first.pictures == second.pictures
    assert (first.row.score, first.row.verdict) == (second.row.score, second.row.verdict)


def test_an_image_is_read_when_its_turn_comes(client: Client) -> None:
    source = Bucket({f"{number:03}.png": png_file(20) for number in range(50)})
    rows = run.score_all(
        source, lambda image: score_one(image, client.inspect, Recipe()).row, concurrency=1
    )
    next(rows)
    rows.close()
    assert len(source.asked) <= 3


def test_a_row_is_read_as_it_was_written() -> None:
    row = Row(image="a.png", error_type="ImageError", error_message="broken", sha256="f" * 64)
    assert Row.from_document(row.to_document()) == row


def test_a_row_of_before_there_were_hashes_is_read() -> None:
    row = Row(image="a.png", score=0.1, verdict="OK", accept=0.2, reject=0.3)
    document = row.to_document()
    del document["sha256"]
    assert Row.from_document(document) == row


def test_a_field_of_a_later_version_is_passed_over() -> None:
    row = Row(image="a.png", score=0.1, verdict="OK", accept=0.2, reject=0.3)
    assert Row.from_document({**row.to_document(), "camera": "left"}) == row


documents = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*Row.__dataclass_fields__, "thresholds", "error"]), inner
        )
    ),
    max_leaves=8,
)


@given(documents)
def test_whatever_a_line_of_results_holds_it_is_a_row_or_a_value_error(document: object) -> None:
    with suppress(ValueError):  # which the reader tells with the line
        assert Row.from_document(document).image
