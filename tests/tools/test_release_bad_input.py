"""Broken repositories, bad names, full disks and rivals: one clear message, and nothing changed."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from diffusionad_client.cli import main
from diffusionad_tools.errors import ReleaseError
from diffusionad_tools.release import durable
from diffusionad_tools.release.procedure import Procedure
from diffusionad_tools.release.staging import staging


def release(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["release", *map(str, arguments)])


@pytest.fixture
def repository(make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path) -> Path:
    """Two releases, the second served."""
    for gain in (0.25, 0.5):
        publish_ungated(make_bundle(model=handmade_model(gain=gain)), tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture
def commands(make_bundle: Any, handmade_model: Any) -> Iterator[tuple[object, ...]]:
    """Every command that changes a repository."""
    bundle = make_bundle(model=handmade_model(gain=0.9))
    return iter(
        [
            ("add", bundle.folder),
            ("promote", "widget", 1),
            ("rollback", "widget"),
            ("thresholds", "widget", "--accept", 0.1),
        ]
    )


def remove_step(repository: Path) -> None:
    (repository / "widget__segmentation").rename(repository.parent / "gone")


def empty_graph(repository: Path) -> None:
    (repository / "widget__segmentation" / "2" / "model.onnx").write_bytes(b"")


def remove_version(repository: Path) -> None:
    (repository / "widget__segmentation" / "2").rename(repository.parent / "gone")


def nonsense(repository: Path) -> None:
    (repository / "widget__segmentation" / "config.pbtxt").write_text("max_batch_size: many")


def edit(model: str, old: str, new: str) -> Callable[[Path], None]:
    def change(repository: Path) -> None:
        path = repository / model / "config.pbtxt"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def another_broken_model(repository: Path) -> None:
    (repository / "foreign").mkdir()
    (repository / "foreign" / "config.pbtxt").write_text("name: ")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_step, "widget__segmentation/config.pbtxt: missing"),
        (remove_version, "widget__segmentation/2/model.onnx: missing or empty"),
        (empty_graph, "widget__segmentation/2/model.onnx: missing or empty"),
        (nonsense, "widget__segmentation/config.pbtxt: not a Triton model configuration"),
        (
            edit("widget__segmentation", "dims: 32", "dims: 64"),
            "widget__segmentation/config.pbtxt: input is",
        ),
        (
            edit("widget__segmentation", "versions: 2", "versions: 1"),
            "widget__segmentation/config.pbtxt: serves the versions [1], widget needs 2",
        ),
        (
            edit("widget__segmentation", "max_batch_size: 8", "max_batch_size: 4"),
            "widget__segmentation/config.pbtxt: max_batch_size is 4, widget takes 8",
        ),
        (edit("widget", "dims: 32", "dims: 64"), "widget/config.pbtxt: input is"),
        (edit("widget", "model_version: 2", "model_version: 9"), "widget needs 9"),
        (edit("widget", "versions: 2", "versions: 1"), "widget/config.pbtxt: not what was"),
        (edit("widget", '\\"accept\\": 0.2', '\\"accept\\": 0.1'), "does not say what makes that"),
        (another_broken_model, "foreign/config.pbtxt: not a Triton model configuration"),
    ],
)
def test_nothing_is_built_on_a_repository_that_is_broken(
    repository: Path,
    commands: Iterator[tuple[object, ...]],
    damage: Callable[[Path], None],
    message: str,
) -> None:
    damage(repository)
    before = contents(repository.parent)
    for command in commands:
        result = release(*command, "--repository", repository)
        assert result.exit_code == 1, command
        assert message in result.stderr
        assert "Traceback" not in result.output
        assert contents(repository.parent) == before


def test_a_release_whose_graph_was_altered_is_not_promoted(repository: Path) -> None:
    graph = repository / "widget__segmentation" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    before = contents(repository)
    result = release("promote", "widget", 1, "--repository", repository)
    assert result.exit_code == 1
    assert f"{graph}: not the file that was published" in result.stderr
    assert contents(repository) == before


def test_a_release_whose_record_was_edited_is_not_promoted(repository: Path) -> None:
    record = repository / "widget" / "1" / "release.pbtxt"
    record.write_text(record.read_text().replace("dims: 32", "dims: 64"))
    result = release("promote", "widget", 1, "--repository", repository)
    assert result.exit_code == 1
    assert f"{record}: input is" in result.stderr


@pytest.mark.parametrize("name", ["two__words", "-widget", "wid get", "", "a" * 65, "../widget"])
def test_a_name_that_breaks_the_rule_is_refused(
    repository: Path, make_bundle: Any, name: str
) -> None:
    before = contents(repository)
    bundle = make_bundle()
    result = release("add", bundle.folder, "--name", name, "--repository", repository)
    assert result.exit_code == 1
    assert "cannot name a category" in result.stderr
    assert contents(repository) == before


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_what_the_file_system_refuses_at_any_write_harms_no_release(
    repository: Path,
    make_bundle: Any,
    add_ungated: Any,
    handmade_model: Any,
    what_triton_would_serve: Any,
    monkeypatch: pytest.MonkeyPatch,
    reason: int,
) -> None:
    bundle = make_bundle(model=handmade_model(gain=0.9))
    old = what_triton_would_serve(repository)
    for operation in ("write_bytes", "copy", "make_folder", "move_into_place"):

        def refuse(*paths: Any) -> None:
            raise OSError(reason, os.strerror(reason), str(paths[-1]))

        with monkeypatch.context() as patch:
            patch.setattr(durable, operation, refuse)
            with pytest.raises(ReleaseError, match=os.strerror(reason)) as caught:
                add_ungated(bundle, repository)
        assert f"No release in {repository} was harmed" in str(caught.value)
        assert what_triton_would_serve(repository) == old
        assert not (repository.parent / ".repository.writing").exists()
    assert add_ungated(bundle, repository).added


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is nearly full already."""
    mount = tmp_path / "disk"
    mount.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(mount)]
    tried = subprocess.run(options, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"needs the right to mount a tmpfs: {tried.stderr.strip()}")
    yield mount
    subprocess.run(["umount", mount], check=True)


def test_a_disk_that_is_really_full_leaves_the_release_that_is_served(
    tiny_disk: Path,
    make_bundle: Any,
    add_ungated: Any,
    handmade_model: Any,
    what_triton_would_serve: Any,
) -> None:
    repository = tiny_disk / "repository"
    add_ungated(make_bundle(), repository)
    before = contents(repository)
    with suppress(OSError), (tiny_disk / "ballast").open("wb", buffering=0) as ballast:
        while True:  # until it is full
            ballast.write(b"\0" * 4096)
    full = rf"No space left on device: the disk at {tiny_disk} has 0\.0 of 0\.5 MiB free"
    with pytest.raises(ReleaseError, match=full):
        add_ungated(make_bundle(model=handmade_model(gain=0.9)), repository)
    assert contents(repository) == before
    (tiny_disk / "ballast").unlink()
    assert add_ungated(make_bundle(model=handmade_model(gain=0.9)), repository).version == 2


def test_a_read_only_disk_is_one_clear_line(
    tiny_disk: Path, make_bundle: Any, add_ungated: Any
) -> None:
    repository = tiny_disk / "repository"
    add_ungated(make_bundle(), repository)
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    for command in (("promote", "widget", 1), ("thresholds", "widget", "--accept", 0.1)):
        result = release(*command, "--repository", repository)
        assert result.exit_code == 1
        assert "Read-only file system" in result.stderr
        assert "Traceback" not in result.output


def test_a_second_writer_waits_for_the_first(
    repository: Path, make_bundle: Any, add_ungated: Any, handmade_model: Any
) -> None:
    inside, bundle = threading.Event(), make_bundle(model=handmade_model(gain=0.9))

    def hold() -> None:
        with staging(repository):
            inside.set()
            time.sleep(0.5)

    first = threading.Thread(target=hold)
    first.start()
    inside.wait()
    started = time.monotonic()
    added = add_ungated(bundle, repository, procedure=Procedure(wait=60))
    first.join()
    assert time.monotonic() - started > 0.3
    assert added.version == 3


def test_a_second_writer_that_waited_long_enough_says_so(
    repository: Path, commands: Iterator[tuple[object, ...]]
) -> None:
    before = contents(repository)
    with staging(repository):
        for command in commands:
            result = release(*command, "--repository", repository, "--wait", 0.2)
            assert result.exit_code == 1
            assert f"another `diffusionad release` has been writing to {repository} for 0.2 s" in (
                result.stderr
            )
    assert contents(repository) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
