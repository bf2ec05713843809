"""What `score` makes of faults: full disks, runs side by side, pipes, and formulas in names."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result
from waiting import wait_for as wait_for_seconds

from diffusionad_client.cli import main
from diffusionad_client.commands import progress
from diffusionad_client.errors import OutputError
from diffusionad_client.output_folders import claimed
from diffusionad_client.scoring.results import RESULTS, read_rows, read_summary
from diffusionad_client.scoring.sinks import FolderSink
from diffusionad_client.testing import Refusal

wait_for = partial(wait_for_seconds, seconds=30)

SaveImage = Callable[..., Path]
FAULTS = Path(__file__).parents[3] / "shared" / "faults" / "results"


def score(*arguments: object, **options: Any) -> Result:
    command = ["score", *map(str, arguments)]
    return CliRunner().invoke(main, command, catch_exceptions=False, **options)


def rows(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]


@pytest.fixture
def parts(tmp_path: Path, save_image: SaveImage) -> Path:
    for number in range(12):
        save_image(tmp_path / "parts" / f"{number:02}.png", 20 * number)
    return tmp_path / "parts"


def test_an_overwrite_that_fails_leaves_the_earlier_results_as_they_were(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert score(parts, "--url", triton.url, "--output", output).exit_code == 0
    before = {path: path.read_bytes() for path in output.rglob("*.*") if path.is_file()}
    triton.fail(Refusal(grpc.StatusCode.PERMISSION_DENIED, "no"))
    failed = score(parts, "--url", triton.url, "--output", output, "--overwrite")
    assert failed.exit_code == 1
    assert {path: path.read_bytes() for path in before} == before
    assert CliRunner().invoke(main, ["report", str(output)]).exit_code == 0
    triton.heal()
    assert score(parts, "--url", triton.url, "--output", output, "--overwrite").exit_code == 0
    assert not list(output.rglob("*.part"))


def test_an_overwrite_that_is_killed_leaves_the_earlier_results_and_no_lock(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    score(parts, "--url", triton.url, "--output", output)
    before = rows(output)
    triton.slow_s = 0.05
    command = [sys.executable, "-m", "diffusionad_client", "score", str(parts), "--overwrite"]
    command += ["--url", triton.url, "--output", str(output), "--concurrency", "1"]
    part = output / "results.jsonl.part"
    with subprocess.Popen(command) as process:
        wait_for(lambda: part.exists() and part.stat().st_size)
        process.send_signal(signal.SIGKILL)
    assert rows(output) == before
    assert all((output / row["heatmap"]).is_file() for row in before)
    triton.slow_s = 0
    assert score(parts, "--url", triton.url, "--output", output, "--overwrite").exit_code == 0


def test_a_second_run_into_the_same_folder_is_told_who_writes_there(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    with claimed(tmp_path / "out", RESULTS):
        for more in ((), ("--overwrite",)):
            second = score(parts, "--url", triton.url, "--output", tmp_path / "out", *more)
            assert second.exit_code == 1
            assert f"another run is writing there: process {os.getpid()} on" in second.stderr
    assert not triton.requests


def test_a_picture_that_someone_put_among_ours_is_named_and_stays(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    score(parts, "--url", triton.url, "--output", output)
    (output / "heatmaps" / "holiday.png").write_text("mine")
    for more in ((), ("--overwrite",)):
        refused = score(parts, "--url", triton.url, "--output", output, *more)
        assert refused.exit_code == 1
        assert (output / "heatmaps" / "holiday.png").read_text() == "mine"
    assert "holds heatmaps/holiday.png, which no `diffusionad score` wrote" in refused.stderr
    (output / "heatmaps" / "holiday.png").rename(output / "holiday.png")
    assert score(parts, "--url", triton.url, "--output", output, "--overwrite").exit_code == 0
    assert (output / "holiday.png").read_text() == "mine"


def test_results_with_an_image_whose_pictures_were_half_written_can_be_replaced(
    triton: Any, tmp_path: Path, save_image: SaveImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_image(tmp_path / "parts" / "a.png")
    put = FolderSink.put

    def refuse_jpeg(sink: FolderSink, name: str, content: bytes) -> None:
        if name.endswith(".jpg"):
            cause = OSError(errno.ENAMETOOLONG, "File name too long")
            raise OutputError(f"{name}: cannot be written") from cause
        put(sink, name, content)

    monkeypatch.setattr(FolderSink, "put", refuse_jpeg)
    arguments = (tmp_path / "parts", "--url", triton.url, "--output", tmp_path / "out")
    assert score(*arguments).exit_code == 3
    assert score(*arguments, "--overwrite").exit_code == 3


def test_a_report_is_not_made_while_another_run_replaces_the_results(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    score(parts, "--url", triton.url, "--output", tmp_path / "out")
    with claimed(tmp_path / "out", RESULTS, overwrite=True):
        made = CliRunner().invoke(main, ["report", str(tmp_path / "out")])
    assert made.exit_code == 1
    assert "another run is writing there" in made.output


def test_a_report_of_no_results_leaves_the_folder_alone(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert result.exit_code == 1
    assert "results.jsonl: there is no such file" in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


def test_two_runs_that_overwrite_never_mix_their_rows(
    triton: Any, parts: Path, tmp_path: Path, save_image: SaveImage
) -> None:
    other = save_image(tmp_path / "other" / "a.png").parent
    command = [sys.executable, "-m", "diffusionad_client", "score", "--overwrite", "--no-report"]
    command += ["--url", triton.url, "--output", str(tmp_path / "out")]
    runs = [subprocess.Popen([*command, str(source)]) for source in (parts, other)]
    codes = [run.wait(60) for run in runs]
    assert 0 in codes
    assert read_summary(tmp_path / "out").images == len(list(read_rows(tmp_path / "out")))


def test_a_folder_with_something_else_in_it_is_refused_before_a_server_is_asked(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine" / "heatmaps" / "holiday.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    result = score(parts, "--url", triton.url, "--output", tmp_path / "mine", "--overwrite")
    assert result.exit_code == 1
    assert "holds heatmaps, which no `diffusionad score` wrote" in result.stderr
    assert mine.read_text() == "mine"
    assert not triton.counts


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_regular_file_is_a_failed_row_and_nothing_hangs(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    os.mkfifo(parts / "pipe.png")
    os.symlink(tmp_path / "gone", parts / "link.png")
    with socket.socket(socket.AF_UNIX) as open_socket:
        os.chdir(parts)  # the path of a socket must be short
        open_socket.bind("socket.png")
        result = score(parts, "--url", triton.url, "--output", tmp_path / "out")
    assert result.exit_code == 3
    failed = {
        row["image"]: row["error"]["message"] for row in rows(tmp_path / "out") if row["error"]
    }
    assert set(failed) == {"pipe.png", "link.png", "socket.png"}
    assert "a named pipe" in failed["pipe.png"]
    assert "a socket" in failed["socket.png"]
    assert "No such file" in failed["link.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("kind", ["source", "list", "results", "map"])
def test_a_named_pipe_is_never_waited_for(
    triton: Any, parts: Path, tmp_path: Path, kind: str
) -> None:
    pipe = tmp_path / "results.jsonl"
    os.mkfifo(pipe)
    score(parts, "--url", triton.url, "--output", tmp_path / "mapped", "--save-maps")
    (tmp_path / "mapped" / "anomaly_maps" / "00.png.png").unlink()
    os.mkfifo(tmp_path / "mapped" / "anomaly_maps" / "00.png.png")
    command: list[object] = {
        "source": ["score", pipe, "--url", triton.url, "--output", tmp_path / "out"],
        "list": ["score", "--list", pipe, "--output", tmp_path / "out"],
        "results": ["calibrate", tmp_path],
        "map": ["calibrate", tmp_path / "mapped"],
    }[kind]
    result = CliRunner().invoke(main, list(map(str, command)))
    assert result.exit_code == (3 if kind == "source" else 1)
    assert "a named pipe" in result.stderr


STALLED = """
import sys, time
from diffusionad_client import regular_files
read = regular_files._read
regular_files._read = lambda path: time.sleep(3600) if "GONE" in str(path) else read(path)
from diffusionad_client.cli import main
from diffusionad_client.commands import progress
print("started", flush=True)
main()
"""


def test_a_read_that_never_ends_does_not_keep_a_ctrl_c_out(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    stalled = STALLED.replace("GONE", "png")
    command = [sys.executable, "-c", stalled, "score", str(parts), "--timeout", "600"]
    command += ["--url", triton.url, "--output", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for((tmp_path / "out" / "results.jsonl.part").exists)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None  # it finishes what is under way
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == 130


def test_a_read_that_never_ends_is_a_failed_row_when_its_time_is_over(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    done = score_stalled("08", triton, parts, tmp_path / "out")
    assert done.returncode == 3, done.stderr
    (failed,) = (row for row in rows(tmp_path / "out") if row["error"])
    assert failed["image"] == "08.png"
    assert "not read within 0.5 s" in failed["error"]["message"]


def test_a_drive_that_is_gone_ends_the_run_as_a_server_does_that_is(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    done = score_stalled("png", triton, parts, tmp_path / "out")
    assert done.returncode == 1
    assert "is its drive there?" in done.stderr


def score_stalled(
    gone: str, triton: Any, parts: Path, output: Path
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", STALLED.replace("GONE", gone), "score", str(parts)]
    command += ["--no-report", "--timeout", "0.5", "--url", triton.url, "--output", str(output)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_list_is_read_from_standard_input(triton: Any, parts: Path, tmp_path: Path) -> None:
    listed = f"{parts}/03.png\n\n{parts}/01.png\n"
    result = score("--list", "-", "--url", triton.url, "--output", tmp_path / "out", input=listed)
    assert result.exit_code == 0, result.output
    assert [row["image"] for row in rows(tmp_path / "out")] == ["03.png", "01.png"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_is_read_as_editors_write_it(
    triton: Any, parts: Path, tmp_path: Path, encoding: str
) -> None:
    (tmp_path / "list.txt").write_text(f"{parts}/03.png\r\n\r\n", encoding=encoding)
    result = score(
        "--list", tmp_path / "list.txt", "--url", triton.url, "--output", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    assert [row["image"] for row in rows(tmp_path / "out")] == ["03.png"]


@pytest.mark.parametrize("name", ["=1+1.png", "+1.png", "-1.png", "@sum.png", "\tx.png"])
def test_a_name_that_spreadsheets_would_run_is_made_safe_in_the_csv_alone(
    triton: Any, tmp_path: Path, save_image: SaveImage, name: str
) -> None:
    save_image(tmp_path / "parts" / name)
    score(tmp_path / "parts", "--url", triton.url, "--output", tmp_path / "out", "--no-report")
    assert rows(tmp_path / "out")[0]["image"] == name
    table = (tmp_path / "out" / "results.csv").read_text(encoding="utf-8-sig")
    assert next(csv.DictReader(table.splitlines()))["image"] == f"'{name}"


def test_the_csv_begins_with_the_mark_that_excel_needs(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    score(parts, "--url", triton.url, "--output", tmp_path / "out", "--no-report")
    assert (tmp_path / "out" / "results.csv").read_bytes().startswith(b"\xef\xbb\xbfimage,")


@pytest.fixture
def results(triton: Any, parts: Path, tmp_path: Path) -> Path:
    score(parts, "--url", triton.url, "--output", tmp_path / "out", "--no-heatmaps")
    return tmp_path / "out"


def edit(results: Path, change: Callable[[bytes], bytes]) -> None:
    path = results / "results.jsonl"
    path.write_bytes(change(path.read_bytes()))


READ = {
    "a byte-order mark": lambda text: b"\xef\xbb\xbf" + text,
    "the line ends of Windows": lambda text: text.replace(b"\n", b"\r\n"),
    "blank lines": lambda text: text.replace(b"\n", b"\n\n") + b" \n",
}
REFUSED = {
    "UTF-16": (lambda text: text.decode().encode("utf-16"), "line 1.*UTF-16"),
    "NaN": (lambda text: text.replace(b'"score": 0.0,', b'"score": NaN,'), "line 1.*score is nan"),
    "text": (lambda text: text.replace(b'"score": 0.0,', b'"score": "0.0",'), "line 1.*'0.0'"),
    "a verdict": (lambda text: text.replace(b'"NG"', b'"PASS"'), "line 9.*'PASS', not one of OK"),
    "thresholds": (lambda text: text.replace(b'"accept": 0.3', b'"accept": 7'), "line 1.*accept"),
    "no JSON": (lambda text: text.replace(b'"score"', b"score"), "line 1: not a row"),
    "a list": (lambda text: b"[1, 2]\n" + text, "line 1.*not an object"),
    "no image": (lambda text: text.replace(b'"image"', b'"picture"'), "line 1.*names no image"),
}


@pytest.mark.parametrize("command", ["calibrate", "report"])
@pytest.mark.parametrize("change", READ.values(), ids=READ)
def test_results_are_read_as_editors_leave_them(
    results: Path, command: str, change: Callable[[bytes], bytes]
) -> None:
    edit(results, change)
    result = CliRunner().invoke(main, [command, str(results)])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", ["calibrate", "report"])
@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_results_that_are_not_ours_are_refused_with_file_and_line(
    results: Path, command: str, change: Callable[[bytes], bytes], message: str
) -> None:
    edit(results, change)
    result = CliRunner().invoke(main, [command, str(results)])
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    said = " ".join(result.output.split())
    assert "results.jsonl, line" in said
    assert re.search(message, said), said


def test_a_summary_that_is_not_ours_is_refused_with_its_field(results: Path) -> None:
    document = json.loads((results / "run.json").read_text())
    (results / "run.json").write_text(json.dumps({**document, "images": "many"}))
    result = CliRunner().invoke(main, ["report", str(results)])
    assert result.exit_code == 1
    assert "run.json: not the summary of a run: images is 'many'" in result.output


@pytest.mark.skipif(not FAULTS.is_dir(), reason="no faulty results at ../shared/faults")
@pytest.mark.parametrize("command", ["calibrate", "report"])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        *(("bom", 0), ("bom_crlf", 0), ("blank_line_mid", 0)),
        *(("nan", 1), ("strings", 1), ("utf16", 1), ("verdict_other", 1)),
    ],
)
def test_faulty_results_of_the_field_are_read_or_refused(
    tmp_path: Path, command: str, name: str, code: int
) -> None:
    shutil.copytree(FAULTS / name, tmp_path / name)
    result = CliRunner().invoke(main, [command, str(tmp_path / name)])
    assert result.exit_code == code, result.output
    assert code == 0 or "results.jsonl, line" in " ".join(result.output.split())


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with 256 KiB; only root may mount one."""
    mount = tmp_path / "disk"
    mount.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)]
    tried = subprocess.run(options, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"needs the right to mount a tmpfs: {tried.stderr.strip()}")
    yield mount
    subprocess.run(["umount", mount], check=True)


@pytest.mark.parametrize("options", [(), ("--no-heatmaps",)])
def test_a_full_disk_is_named_and_what_was_scored_is_kept(
    triton: Any, tmp_path: Path, tiny_disk: Path, save_image: SaveImage, options: tuple[str, ...]
) -> None:
    for number in range(300):
        save_image(tmp_path / "many" / f"{number:03}.png", 100, size=(8, 8))
    (tiny_disk / "ballast").write_bytes(bytes(150_000))
    output = tiny_disk / "out"
    result = score(tmp_path / "many", "--url", triton.url, "--output", output, *options)
    assert result.exit_code == 1
    assert f"No space left on device: the disk at {tiny_disk} has 0.0 of 0.2 MiB" in result.stderr
    kept = (output / "results.jsonl.part").read_text().splitlines()
    assert kept
    assert all(json.loads(line)["verdict"] for line in kept)
    assert f"{len(kept)} of 300 images were scored" in result.stderr
    subprocess.run(["mount", "-o", "remount,size=64m", str(tiny_disk)], check=True)
    more_room = score(tmp_path / "many", "--url", triton.url, "--output", output, *options)
    assert more_room.exit_code == 0, more_room.output
    written = (output / "results.jsonl").read_text().splitlines()
    assert written[: len(kept)] == kept
    assert len(written) == 300


def test_off_a_terminal_a_plain_line_says_now_and_then_how_far_the_run_is(
    triton: Any, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    result = score(parts, "--url", triton.url, "--output", tmp_path / "out", "--no-report")
    lines = [line for line in result.stderr.splitlines() if line.startswith("Scoring: ")]
    assert len(lines) == 12
    assert re.fullmatch(
        r"Scoring: 6 of 12 images, [\d.]+ images/s, \d+ s left; OK 4, REVIEW 2", lines[5]
    )


def test_a_short_run_off_a_terminal_says_nothing_of_its_progress(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    result = score(parts, "--url", triton.url, "--output", tmp_path / "out", "--no-report")
    assert result.stderr == ""


@pytest.mark.parametrize(("option", "value"), [("--accept", 40), ("--reject", -0.1)])
def test_a_threshold_that_no_score_can_reach_is_refused(
    triton: Any, parts: Path, tmp_path: Path, option: str, value: float
) -> None:
    result = score(parts, "--url", triton.url, "--output", tmp_path / "out", option, value)
    assert result.exit_code == 2
    assert f"{float(value)} is not in the range 0<=x<=1" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_threshold_that_is_no_number_is_refused(triton: Any, parts: Path, tmp_path: Path) -> None:
    result = score(parts, "--url", triton.url, "--output", tmp_path / "out", "--accept", "nan")
    assert result.exit_code in (1, 2)
    assert "nan" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_list_with_a_zero_byte_is_refused_with_its_line(triton: Any, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a.png\nb\0.png\n")
    result = score("--list", tmp_path / "list.txt", "--url", triton.url, "--output", tmp_path / "o")
    assert result.exit_code == 1
    assert "list.txt, line 2: a zero byte" in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_a_name_that_is_not_utf_8_is_scored_reported_and_told(
    triton: Any, tmp_path: Path, save_image: SaveImage
) -> None:
    whole = save_image(tmp_path / "parts" / "a.png")
    os.rename(whole, os.fsencode(whole.parent) + b"/\xff\xe9.png")
    Path(os.fsdecode(os.fsencode(whole.parent) + b"/\xfebroken.png")).write_text("no image")
    command = [sys.executable, "-m", "diffusionad_client", "score", str(whole.parent)]
    command += ["--url", triton.url, "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert b"broken.png: not an image" in done.stderr
    assert {row["image"] for row in rows(tmp_path / "out")} == {
        "\udcff\udce9.png",
        "\udcfebroken.png",
    }
    again = CliRunner().invoke(main, ["report", str(tmp_path / "out")])
    assert again.exit_code == 0, again.output
