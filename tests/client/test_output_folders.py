"""Whose an output folder is, who may write to it, and that earlier results stay until then."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from diffusionad_client import output_folders
from diffusionad_client.errors import OutputError
from diffusionad_client.output_folders import Kind, check_claim, claimed, settle

KIND = Kind(
    name="score",
    content="the results of an earlier run",
    entries=("rows", "page", "pictures"),
    proofs=("rows",),
    inside={"pictures": ("*.png",)},
)
TRIES = 200


def write(folder: Path, text: str, *, overwrite: bool = False, page: bool = True) -> None:
    with claimed(folder, KIND, overwrite=overwrite) as output:
        output.part("rows").write_text(text)
        output.part("pictures").mkdir()
        (output.part("pictures") / f"{text}.png").write_text(text)
        if page:
            output.part("page").write_text(text)
        output.publish()


def write_half(folder: Path, text: str) -> None:
    with claimed(folder, KIND, overwrite=True) as output:
        output.part("rows").write_text(text)
        raise ZeroDivisionError


def content(folder: Path) -> dict[str, str]:
    """Everything below a folder but what is hidden."""
    found = (path for path in sorted(folder.rglob("[!.]*")) if ".diffusionad" not in path.parts)
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in found if path.is_file()
    }


def test_whole_results_take_the_place_of_all_earlier_ones(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    write(tmp_path / "out", "new", overwrite=True, page=False)
    assert content(tmp_path / "out") == {"rows": "new", "pictures/new.png": "new"}


def test_earlier_results_are_refused_without_leave_to_overwrite(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    with pytest.raises(OutputError, match=r"earlier run \(page\).*--overwrite"):
        write(tmp_path / "out", "new")


def test_earlier_results_stay_readable_when_the_run_that_replaces_them_fails(
    tmp_path: Path,
) -> None:
    write(tmp_path / "out", "old")
    before = content(tmp_path / "out")
    with pytest.raises(ZeroDivisionError):
        write_half(tmp_path / "out", "half")
    assert {**before, "rows.part": "half"} == content(tmp_path / "out")
    write(tmp_path / "out", "new", overwrite=True)
    assert set(content(tmp_path / "out")) == {"rows", "page", "pictures/new.png"}


@pytest.mark.parametrize("names", [("notes.txt",), ("pictures/mine.png",), ("a", "b", "c", "d")])
def test_a_folder_of_someone_else_is_refused_and_nothing_in_it_changes(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=names[0].split("/")[0]):
        write(tmp_path, "new", overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_others_put_beside_our_results_is_never_touched(tmp_path: Path) -> None:
    write(tmp_path, "old")
    (tmp_path / "thresholds.json").write_text("mine")
    write(tmp_path, "new", overwrite=True)
    assert content(tmp_path)["thresholds.json"] == "mine"
    assert content(tmp_path)["rows"] == "new"


def test_what_others_put_among_our_pictures_is_named_and_stays(tmp_path: Path) -> None:
    write(tmp_path, "old")
    (tmp_path / "pictures" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds pictures/notes\.txt"):
        write(tmp_path, "new", overwrite=True)
    assert content(tmp_path)["pictures/notes.txt"] == "mine"


@pytest.mark.parametrize("name", ["lost+found/x", ".DS_Store", "Thumbs.db", ".snapshot/x"])
def test_a_folder_that_holds_only_what_systems_leave_behind_is_free(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    write(tmp_path, "new")
    write(tmp_path, "newer", overwrite=True)
    assert (tmp_path / name).exists()


def test_results_from_before_folders_were_marked_are_ours(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("old")
    (tmp_path / "pictures").mkdir()
    write(tmp_path, "new", overwrite=True)
    assert content(tmp_path)["rows"] == "new"


def test_a_folder_of_another_kind_of_run_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "old")
    other = Kind(name="train", content="a run", entries=("rows",), proofs=("rows",))
    with (
        pytest.raises(OutputError, match="belongs to `diffusionad score`"),
        claimed(tmp_path, other, overwrite=True),
    ):
        pass


def test_a_path_that_is_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="out"):
        write(tmp_path / "out", "new")


def test_the_second_run_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    with claimed(tmp_path / "out", KIND):
        for take in (lambda: write(tmp_path / "out", "b", overwrite=True), lambda: peek(tmp_path)):
            with pytest.raises(OutputError, match=rf"process {os.getpid()} on .+, since 20\d\d-"):
                take()
    write(tmp_path / "out", "b")


def peek(tmp_path: Path) -> None:
    check_claim(tmp_path / "out", KIND, overwrite=True)


@pytest.mark.parametrize("refusal", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_keeps_two_runs_apart_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="only POSIX locks are refused so")

    def flock(*_: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(fcntl, "flock", flock)
    with claimed(tmp_path, KIND), pytest.raises(OutputError, match="another run is writing there"):
        write(tmp_path, "b", overwrite=True)
    write(tmp_path, "b")


def test_unfinished_results_are_kept_for_a_run_that_goes_on_with_them(tmp_path: Path) -> None:
    with claimed(tmp_path, KIND) as first:
        first.part("rows").write_text("half")
    with claimed(tmp_path, KIND, overwrite=True, keep_parts=True) as second:
        assert second.part("rows").read_text() == "half"


HOLD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_output_folders import KIND, claimed
with claimed(Path(sys.argv[1]), KIND):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_killed_process_does_not_block(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=f"process {holder.pid} on"):
            write(tmp_path, "new")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    write(tmp_path, "new")


def take_each(folder: Path, name: str, barrier: Barrier, taken: list[str]) -> None:
    for number in range(TRIES):
        barrier.wait()
        try:
            write(folder / str(number), name)
        except OutputError:
            continue
        taken.append(f"{number} {name}")


def replace_each(folder: Path, name: str, barrier: Barrier, taken: list[str]) -> None:
    for _ in range(TRIES // 4):
        barrier.wait()
        try:
            write(folder, name, overwrite=True)
        except OutputError:
            continue
        taken.append(name)


def in_two_processes(work: object, folder: Path) -> list[str]:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        taken = manager.list()
        barrier = context.Barrier(2)
        processes = [
            context.Process(target=work, args=(folder, name, barrier, taken)) for name in "ab"
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0]
        return list(taken)


def test_of_two_processes_exactly_one_takes_a_folder(tmp_path: Path) -> None:
    taken = in_two_processes(take_each, tmp_path)
    assert sorted(line.split()[0] for line in taken) == sorted(map(str, range(TRIES)))
    for line in taken:
        number, name = line.split()
        assert set(content(tmp_path / number).values()) == {name}


def test_two_runs_that_overwrite_never_mix(tmp_path: Path) -> None:
    taken = in_two_processes(replace_each, tmp_path / "out")
    assert set(taken) == {"a", "b"}
    left = content(tmp_path / "out")
    assert len(set(left.values())) == 1
    assert len(left) == 3


def test_a_change_that_was_begun_is_finished_wherever_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {"rows": "new", "page": "new", "pictures/new.png": "new"}
    for step in range(100):
        folder = tmp_path / str(step)
        write(folder, "old")
        with monkeypatch.context() as patched:
            kill_at(step, patched)
            try:
                write(folder, "new", overwrite=True)
                break
            except Killed:
                pass
        settle(folder)
        assert content(folder) == whole
    assert step == 6  # each of three entries goes out and in


class Killed(BaseException):
    pass


def kill_at(step: int, patched: pytest.MonkeyPatch) -> None:
    """End the process, as it were, before a certain rename of the change."""
    replace, done, begun = Path.replace, 0, False

    def counted(self: Path, target: Path) -> Path:
        nonlocal done, begun
        if begun:
            if done == step:
                raise Killed
            done += 1
        begun = begun or target.name == output_folders._PUBLISH
        return replace(self, target)

    patched.setattr(Path, "replace", counted)


def test_only_this_kinds_entries_can_be_written(tmp_path: Path) -> None:
    with claimed(tmp_path, KIND) as output, pytest.raises(ValueError, match="weights"):
        output.part("weights")
