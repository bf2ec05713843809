"""Whoever decodes the images, the records are the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from diffusionad_client.cli import main
from diffusionad_client.scoring.results import read_rows
from diffusionad_client.testing import FakeServer, Fault

SaveImage = Callable[..., Path]
OF_THE_MOMENT = ("timings", "scored_at", "request_id", "server")


@pytest.fixture
def decoding(make_category: Callable[..., Any]) -> Iterator[FakeServer]:
    category = make_category()
    category.encoded = True
    with FakeServer(category) as server:
        yield server


@pytest.fixture
def parts(tmp_path: Path, save_image: SaveImage) -> Path:
    for number, side in enumerate((40, 400, 40)):
        save_image(tmp_path / f"parts/{number}.png", 100 * number, size=(side, 30))
    (tmp_path / "parts" / "text.png").write_text("no image")
    return tmp_path / "parts"


def score(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["score", *map(str, arguments)], catch_exceptions=False)


def records(output: Path) -> list[str]:
    return [
        json.dumps({k: v for k, v in row.to_document().items() if k not in OF_THE_MOMENT})
        for row in read_rows(output)
        if row.error_type is None
    ]


@pytest.mark.parametrize("heatmaps", ["none", "ng", "all"])
def test_records_and_pictures_are_the_same_whoever_decodes(
    decoding: FakeServer, parts: Path, tmp_path: Path, heatmaps: str
) -> None:
    for decode in ("client", "server", "auto"):
        options = ("--decode", decode, "--heatmaps", heatmaps, "--no-report")
        result = score(parts, "--url", decoding.url, "--output", tmp_path / decode, *options)
        assert result.exit_code == 3, result.stderr
        (failed,) = [row for row in read_rows(tmp_path / decode) if row.error_type]
        assert (failed.image, failed.error_type) == ("text.png", "ImageError")
        assert str(failed.error_message).startswith("text.png: ")
    assert len(records(tmp_path / "client")) == 3
    assert records(tmp_path / "server") == records(tmp_path / "client")
    assert records(tmp_path / "auto") == records(tmp_path / "client")
    pictures = {p.relative_to(tmp_path / "client") for p in (tmp_path / "client").rglob("*.png")}
    assert len(pictures) == {"none": 0, "ng": 1, "all": 3}[heatmaps]
    for decode in ("server", "auto"):
        for name in pictures:
            same = (tmp_path / "client" / name).read_bytes()
            assert (tmp_path / decode / name).read_bytes() == same


def test_files_are_sent_as_they_are_if_the_server_is_to_decode(
    decoding: FakeServer, parts: Path, tmp_path: Path
) -> None:
    score(parts, "--url", decoding.url, "--output", tmp_path / "out", "--decode", "server")
    assert {request.model for request in decoding.requests} == {"screw__encoded"}
    assert len(decoding.requests) == 5  # the images, one of them no image, and a grey one before


def test_a_server_that_decodes_nothing_is_a_sentence_before_anything_is_written(
    triton: FakeServer, parts: Path, tmp_path: Path
) -> None:
    result = score(parts, "--url", triton.url, "--output", tmp_path / "out", "--decode", "server")
    assert result.exit_code == 1
    assert "screw__encoded" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_decoder_that_comes_back_is_waited_for(
    decoding: FakeServer, parts: Path, tmp_path: Path
) -> None:
    def stop(call: Any) -> None:
        if call.method == "ModelInfer" and len(decoding.requests) == 2:
            decoding.on_call = None
            decoding.fail(Fault.STOPPING, times=4)

    decoding.on_call = stop
    options = ("--decode", "server", "--concurrency", "1", "--timeout", "0.5")
    result = score(parts, "--url", decoding.url, "--output", tmp_path / "out", *options)
    assert result.exit_code == 3, result.stderr
    assert "Going on after" in result.stderr
    assert len(records(tmp_path / "out")) == 3
