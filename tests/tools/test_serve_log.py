"""`diffusionad serve --log-format json`: every line is an object, Triton's among them."""

from __future__ import annotations

import errno
import json
import os
import signal
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for

from diffusionad_client.errors import ServerUnavailableError
from diffusionad_client.sdk.client import Client
from diffusionad_tools.server.log import RecordLog
from diffusionad_tools.server.triton_lines import LogRecord, TritonLines

NOW = datetime.now(timezone.utc)


@pytest.fixture
def repository(make_bundle: Any, publish_ungated: Any, tmp_path: Path) -> Path:
    publish_ungated(make_bundle(), tmp_path / "repository")
    return tmp_path / "repository"


def objects(text: str) -> list[dict[str, Any]]:
    """Every line, each of which must be an object with what all of them have."""
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        assert {"time", "level", "source", "message"} <= line.keys()
        assert line["level"] in {"info", "warning", "error", "critical"}
        assert abs(datetime.fromisoformat(line["time"]) - NOW) < timedelta(minutes=10)
    return found


def is_ready(client: Client) -> bool:
    try:
        return client.health().ready
    except ServerUnavailableError:
        return False


def own(when: datetime, level: str, rest: str) -> str:
    return f"{level}{when:%m%d %H:%M:%S.%f} 4717 {rest}"


@pytest.mark.server
def test_serve_and_its_triton_write_one_object_a_line_also_of_a_server_that_died(
    start_serve: Any, repository: Path
) -> None:
    command = start_serve(repository, "--log-format", "json", log_file=False)
    (ready,) = objects(command.read_line())
    assert ready["source"] == "serve"
    assert ready["message"] == f"Ready for gRPC on {ready['url']}"
    first = command.descendants()
    os.kill(first[0], signal.SIGKILL)
    with Client(ready["url"], timeout=30) as client:
        wait_for(lambda: not {*first} & {*command.descendants()}, 20)
        wait_for(lambda: is_ready(client), 60)
    command.process.send_signal(signal.SIGTERM)
    code, stderr = command.finish()
    assert code == 0
    said = objects(stderr)
    assert {line["source"] for line in said} == {"serve", "triton"}
    assert said[-1]["source"] == "triton"  # to its last word
    (again,) = (line for line in said if "starting Triton again now" in line["message"])
    assert again["level"] == "warning"


@pytest.mark.server
def test_tritons_lines_keep_their_level_their_place_and_their_tables(
    start_serve: Any, repository: Path, tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "triton.jsonl"
    command = start_serve(repository, "--log-format", "json", "--log-file", log)
    assert json.loads(command.read_line())["source"] == "serve"
    command.process.send_signal(signal.SIGTERM)
    code, stderr = command.finish()
    assert code == 0
    assert {line["source"] for line in objects(stderr)} == {"serve"}
    assert str(log) in stderr
    said = objects(log.read_text())
    started = next(line for line in said if "Started GRPCInferenceService" in line["message"])
    assert started["level"] == "info"
    assert started["place"].startswith("grpc_server.cc:")
    assert started["process"] > 0
    table = next(line for line in said if "| Model " in line["message"])
    assert "| widget__segmentation " in table["message"]
    assert table["message"].count("\n") > 5  # all of it, as one line
    assert table["place"].startswith("server.cc:")


@pytest.mark.server
def test_the_reason_why_a_server_does_not_come_up_is_told_as_an_object(
    start_serve: Any, repository: Path
) -> None:
    options = ("--log-format", "json", "--model-config-name", "cuda")
    command = start_serve(repository, *options, log_file=False)
    code, stderr = command.finish()
    assert code == 1
    error = objects(stderr)[-1]
    assert (error["level"], error["source"]) == ("error", "serve")
    assert "KIND_GPU but no GPUs are available" in error["message"]


def records(*lines: str) -> list[LogRecord]:
    reader = TritonLines()
    return [record for line in lines for record in reader.read(line)] + list(reader.end())


def test_each_of_tritons_levels_has_a_name() -> None:
    lines = (own(NOW, level, f'a.cc:1] "of {level}"') for level in "IWEF")
    found = [(record.level, record.message) for record in records(*lines)]
    assert found == [
        ("info", "of I"),
        ("warning", "of W"),
        ("error", "of E"),
        ("critical", "of F"),
    ]


def test_times_are_utc_and_of_the_last_year() -> None:
    for when in (NOW, NOW - timedelta(days=300)):
        (record,) = records(own(when, "I", 'a.cc:1] "x"'))
        assert record.time == when
    (soon,) = records(own(NOW + timedelta(days=60), "I", 'a.cc:1] "x"'))
    assert soon.time is not None
    assert soon.time < NOW
    (never,) = records('I0230 03:54:25.465842 4717 a.cc:1] "x"')
    assert (never.time, never.message) == (None, "x")


def test_quotes_and_line_ends_in_a_message_are_read_as_they_were_meant() -> None:
    (record,) = records(own(NOW, "E", r'a.cc:1] "Load \"m\" failed:\nno such file"'))
    assert record.message == 'Load "m" failed:\nno such file'
    (odd,) = records(own(NOW, "E", r'a.cc:1] "C:\models"'))  # as older ones do not escape
    assert odd.message == r"C:\models"


def test_a_table_ends_with_an_empty_line_or_with_the_next_line_of_tritons() -> None:
    head = own(NOW, "I", "server.cc:604] ")
    whole = records(head, "+--+", "|  |", "", "Signal (15) received.")
    assert [record.message for record in whole] == ["+--+\n|  |", "Signal (15) received."]
    cut = records(head, "+--+", own(NOW, "W", 'a.cc:1] "x"'), head, "+--+")
    assert [record.message for record in cut] == ["+--+", "x", "+--+"]


def test_what_is_no_line_of_tritons_is_told_without_its_colours() -> None:
    warn = "[\x1b[1;33mWARN\x1b[0;39m]  NODELAY NOT SUPPORTED"
    found = records(
        warn, "", "Error: Failed to initialize NVML", "error: creating server: Internal"
    )
    assert [(record.level, record.message) for record in found] == [
        ("info", "[WARN]  NODELAY NOT SUPPORTED"),
        ("error", "Error: Failed to initialize NVML"),
        ("error", "error: creating server: Internal"),
    ]
    assert {record.place for record in found} == {None}


def test_lines_are_handed_on_as_they_come_and_the_last_ones_are_waited_for() -> None:
    taken: list[LogRecord] = []
    log = RecordLog(taken.append, "here")
    for text in (b"one\ntw\xffo", b"three\n"):
        with log.opened() as handle:
            os.write(handle, text)
        assert log.said() == text.decode(errors="replace").rstrip()
    assert [record.message for record in taken] == ["one", "tw\ufffdo", "three"]


def test_a_log_that_cannot_be_written_holds_nobody_up() -> None:
    def full(record: LogRecord) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = RecordLog(full, "here")
    with log.opened() as handle:
        for _ in range(200):  # more than a pipe holds
            os.write(handle, b"x" * 1000 + b"\n")
        os.write(handle, b"the end\n")
    assert log.said().endswith("the end")


def test_a_log_file_that_cannot_be_written_is_named(start_serve: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = tmp_path / "file" / "log"
    command = start_serve(tmp_path, "--log-format", "json", "--log-file", log)
    code, stderr = command.finish()
    assert code == 1
    assert f"{log}: cannot be written" in stderr
