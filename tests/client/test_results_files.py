"""The files of results: their published schema, which lines hold, and the tables made of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from diffusionad_client.cli import main
from diffusionad_client.errors import ReportError
from diffusionad_client.scoring.results import read_rows
from diffusionad_client.scoring.row import SCHEMA, Row
from diffusionad_client.scoring.tables import Format, write_table

SaveImage = Callable[..., Path]


def published_schema() -> dict[str, Any]:
    text = (resources.files("diffusionad_client.scoring") / "record.schema.json").read_text()
    schema: dict[str, Any] = json.loads(text)
    return schema


@pytest.fixture(scope="module")
def validator() -> Any:
    checker = jsonschema.Draft202012Validator(published_schema())
    checker.check_schema(published_schema())
    return checker


def scored(image: str, score: float = 0.1, **others: Any) -> Row:
    return Row(image=image, score=score, verdict="OK", accept=0.3, reject=0.6, **others)


def lines_of(*rows: Row) -> str:
    return "".join(json.dumps(row.to_document()) + "\n" for row in rows)


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "results.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_what_a_run_writes_is_what_the_schema_says(
    triton: Any, tmp_path: Path, save_image: SaveImage, validator: Any
) -> None:
    save_image(tmp_path / "parts" / "a.png", 200)
    (tmp_path / "parts" / "b.png").write_text("no image")
    command = ["score", str(tmp_path / "parts"), "--url", triton.url, "--save-maps"]
    CliRunner().invoke(main, [*command, "--output", str(tmp_path / "out"), "--no-report"])
    text = (tmp_path / "out" / "results.jsonl").read_text()
    documents = [json.loads(line) for line in text.splitlines()]
    assert len(documents) == 2
    for document in documents:
        validator.validate(document)
        assert set(document) == set(published_schema()["properties"])
    assert (documents[0]["width"], documents[0]["height"]) == (40, 30)
    assert documents[1]["size"] == len("no image")


def test_the_schema_has_the_number_that_rows_have() -> None:
    assert published_schema()["properties"]["schema"]["const"] == SCHEMA


def test_a_row_that_is_both_scored_and_failed_is_against_the_schema(validator: Any) -> None:
    document = scored("a.png").to_document()
    assert validator.is_valid(document)
    assert not validator.is_valid({**document, "error": {"type": "E", "message": "m"}})
    assert not validator.is_valid({**document, "verdict": None})


def test_of_several_rows_of_an_image_the_last_one_holds(tmp_path: Path) -> None:
    text = lines_of(scored("a.png", 0.1), scored("b.png", 0.2), scored("a.png", 0.25))
    read = [(row.image, row.score) for row in read_rows(write(tmp_path, text))]
    assert read == [("b.png", 0.2), ("a.png", 0.25)]


def test_a_name_written_in_another_way_is_the_same_name(tmp_path: Path) -> None:
    first = lines_of(scored("ä.png", 0.1))
    second = json.dumps(scored("ä.png", 0.2).to_document(), ensure_ascii=False) + "\n"
    reordered = json.dumps(dict(reversed(scored("ä.png", 0.25).to_document().items()))) + "\n"
    for text, score in ((first + second, 0.2), (first + second + reordered, 0.25)):
        assert [row.score for row in read_rows(write(tmp_path, text))] == [score]


names = st.sampled_from(["a", "b", "ä", '"', "\\", "\n", "c/d", "\ud800"])


@given(st.lists(st.tuples(names, st.floats(0, 1))))
def test_the_rows_that_hold_are_those_that_a_dictionary_would_keep(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float]]
) -> None:
    folder = tmp_path_factory.mktemp("results")
    write(folder, lines_of(*(scored(name, score) for name, score in rows)))
    assert {row.image: row.score for row in read_rows(folder)} == dict(rows)
    assert len(list(read_rows(folder))) == len(dict(rows))


def test_a_last_line_that_was_torn_off_is_passed_over_and_supersedes_nothing(
    tmp_path: Path,
) -> None:
    whole = lines_of(scored("a.png", 0.1), scored("b.png", 0.2))
    torn = lines_of(scored("a.png", 0.3)).rstrip("\n")
    for length in range(len(torn)):
        read = list(read_rows(write(tmp_path, whole + torn[:length])))
        assert [(row.image, row.score) for row in read] == [("a.png", 0.1), ("b.png", 0.2)]
    read = list(read_rows(write(tmp_path, whole + torn)))  # as some editors leave it
    assert [(row.image, row.score) for row in read] == [("b.png", 0.2), ("a.png", 0.3)]


def test_a_torn_line_that_is_not_the_last_is_an_error(tmp_path: Path) -> None:
    text = lines_of(scored("a.png"))[:50] + "\n" + lines_of(scored("b.png"))
    with pytest.raises(ReportError, match="line 1: not a row"):
        list(read_rows(write(tmp_path, text)))


def test_rows_of_a_later_schema_are_refused_in_a_sentence(tmp_path: Path) -> None:
    document = {**scored("a.png").to_document(), "schema": SCHEMA + 1}
    write(tmp_path, lines_of(scored("b.png")) + json.dumps(document) + "\n")
    with pytest.raises(ReportError, match=rf"line 2: it is of schema {SCHEMA + 1}.*upgrade it"):
        list(read_rows(tmp_path))


def test_results_of_before_rows_had_a_schema_are_read(tmp_path: Path) -> None:
    old = {
        "image": "a.png", "score": 0.1, "verdict": "OK", "model": "screw", "version": "1",
        "thresholds": {"accept": 0.3, "reject": 0.6}, "release": "r", "error": None,
        "timings": {"decode_s": 0.1, "resize_s": 0.1, "request_s": 0.1}, "heatmap": None,
    }  # fmt: skip
    (row,) = read_rows(write(tmp_path, json.dumps(old) + "\n"))
    assert (row.image, row.score, row.request_s, row.fields) == ("a.png", 0.1, 0.1, {})


ROWS = (
    scored("=1+1.png", fields={"lot": "@4711", "score": "9"}, size=10),
    scored("b.png", 0.2, fields={"serial": "7"}, regions=({"area_percent": 1.5},)),
    Row.failed(
        "c\ud800.png".encode("utf-8", "surrogatepass").decode("utf-8", "replace"), OSError()
    ),
)


def test_a_csv_has_a_column_for_each_field_and_no_cell_that_begins_a_formula(
    tmp_path: Path,
) -> None:
    write(tmp_path, lines_of(*ROWS))
    write_table(tmp_path / "results.jsonl", tmp_path / "t.csv", Format.CSV)
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8-sig") as file:
        table = list(csv.DictReader(file))
    assert [row["image"] for row in table][:2] == ["'=1+1.png", "b.png"]
    assert [row["lot"] for row in table] == ["'@4711", "", ""]
    assert [row["field.score"] for row in table] == ["9", "", ""]
    assert json.loads(table[1]["regions"]) == [{"area_percent": 1.5}]
    assert table[2]["error_type"] == "OSError"


def test_a_parquet_file_has_the_same_rows_with_their_types(tmp_path: Path) -> None:
    from pyarrow import parquet

    write(tmp_path, lines_of(*ROWS))
    write_table(tmp_path / "results.jsonl", tmp_path / "t.parquet", Format.PARQUET)
    table = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert [row["score"] for row in table] == [0.1, 0.2, None]
    assert [row["size"] for row in table] == [10, None, None]
    assert [row["lot"] for row in table] == ["@4711", None, None]
    assert [row["image"] for row in table] == [row.image for row in ROWS]


def test_results_are_converted_by_a_command_that_leaves_them_as_they_are(tmp_path: Path) -> None:
    from diffusionad_client.commands.results import convert

    write(tmp_path, lines_of(scored("a.png", 0.1), scored("a.png", 0.2)))
    before = (tmp_path / "results.jsonl").read_bytes()
    for source, form in ((tmp_path, "csv"), (tmp_path / "results.jsonl", "parquet")):
        done = CliRunner().invoke(convert, [str(source), "--format", form])
        assert done.exit_code == 0, done.output
        assert done.stdout.strip() == str(tmp_path / f"results.{form}")
    text = (tmp_path / "results.csv").read_text(encoding="utf-8-sig")
    assert [row["score"] for row in csv.DictReader(text.splitlines())] == ["0.2"]
    assert (tmp_path / "results.jsonl").read_bytes() == before
    taken = CliRunner().invoke(
        convert, [str(tmp_path), "--format", "csv", "--output", str(tmp_path / "results.jsonl")]
    )
    assert taken.exit_code == 1
    assert (tmp_path / "results.jsonl").read_bytes() == before
