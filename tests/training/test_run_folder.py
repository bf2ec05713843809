"""A training keeps to its own folder: it deletes nothing of others, and outlives a full disk."""

import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from diffusionad_client.cli import main
from diffusionad_client.contract import NETWORK_STEPS
from diffusionad_client.errors import OutputError
from diffusionad_client.output_folders import claimed
from diffusionad_training.errors import ConfigError
from diffusionad_training.fit.module import TrainingModule
from diffusionad_training.fit.plan import TrainingPlan
from diffusionad_training.fit.train import train
from diffusionad_training.run.checkpoint import RUN, load_run

GOLDEN = Path(__file__).parent / "golden" / "run-of-schema-1.zip"


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    with zipfile.ZipFile(GOLDEN) as archive:
        archive.extractall(folder)
    return folder


def plan(golden: Path, output: Path, **options: object) -> TrainingPlan:
    """Four steps of a network of a few kB, a checkpoint after each."""
    config = load_run(golden / "finished").config
    return TrainingPlan(
        *(golden / "plates", output, config),
        **({"workers": 0, "seed": 1, "held_out_share": 0.3, "checkpoint_steps": 1} | options),
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".diffusionad" not in path.parts
    }


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["samples/mine.png", "logs/mine.txt", "notes.txt"])
def test_a_folder_that_holds_something_else_is_refused_by_its_names(
    golden: Path, tmp_path: Path, name: str, overwrite: bool
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=f"holds {name.split('/')[0]}, which no .* wrote"):
        train(plan(golden, tmp_path, overwrite=overwrite))
    assert contents(tmp_path) == {name: b"mine"}


def test_the_working_folder_is_refused_where_it_holds_something(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "bolt.png").write_text("mine")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["train", str(golden / "plates"), "--output", "."])
    assert result.exit_code == 1
    assert "holds samples, which no `diffusionad train` wrote" in result.output
    assert contents(tmp_path) == {"samples/bolt.png": b"mine"}


def test_what_lies_beside_a_run_stays_and_what_lies_in_its_folders_keeps_it_from_going(
    golden: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(plan(golden, run))
    (run / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds a run already"):
        train(plan(golden, run))
    train(plan(golden, run, overwrite=True, time_budget=60))
    assert load_run(run).record.time_budget == 60
    assert (run / "notes.txt").read_text() == "mine"
    (run / "samples" / "mine.png").write_text("mine")
    before = contents(run)
    with pytest.raises(OutputError, match=r"holds samples/mine\.png"):
        train(plan(golden, run, overwrite=True))
    assert contents(run) == before


def test_a_run_of_an_older_version_is_trained_over(golden: Path, tmp_path: Path) -> None:
    run = shutil.copytree(golden / "finished", tmp_path / "run")
    train(plan(golden, run, overwrite=True, time_budget=60))
    assert load_run(run).record.time_budget == 60


def test_two_trainings_do_not_share_a_folder(golden: Path, tmp_path: Path) -> None:
    with (
        claimed(tmp_path / "run", RUN),
        pytest.raises(OutputError, match="another run is writing there: process"),
    ):
        train(plan(golden, tmp_path / "run"))


def test_a_training_that_cannot_begin_leaves_the_run_before_it(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(golden / "finished", tmp_path / "run")
    before = contents(run)
    for options in ({"begin_from": tmp_path}, {"textures": tmp_path / "nowhere"}):
        with pytest.raises(Exception, match=r"not a finished run|no such folder"):
            train(plan(golden, run, overwrite=True, **options))
        assert contents(run) == before


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with 2 MiB; only root may mount one."""
    mount = tmp_path / "disk"
    mount.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)]
    tried = subprocess.run(options, capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"needs the right to mount a tmpfs: {tried.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "--lazy", mount], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


@pytest.mark.parametrize("step", [0, 2])
def test_a_full_disk_is_named_and_the_last_whole_checkpoint_stays(
    golden: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    original = TrainingModule.training_step

    def filling(self: TrainingModule, batch: object, index: int) -> object:
        if index == step:
            fill(disk)
        return original(self, batch, index)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingModule, "training_step", filling)
    with pytest.raises(OutputError, match=rf"No space left .*the disk at {disk} has 0\.\d of 2.0"):
        train(plan(golden, disk / "run"))
    assert not list((disk / "run").rglob("*.part"))
    if step == 0:
        assert not (disk / "run" / "config.json").exists()
        return
    assert load_run(disk / "run").record.steps == 2
    (disk / "filler").unlink()
    (disk / "run" / "samples" / "mine.txt").write_text("mine")  # nothing there is replaced
    monkeypatch.undo()
    train(plan(golden, disk / "run", resumed=True))
    assert load_run(disk / "run").record.steps == 4


def test_a_disk_too_full_to_begin_leaves_the_run_before_it(golden: Path, disk: Path) -> None:
    run = shutil.copytree(golden / "finished", disk / "run")
    before = contents(run)
    (run / ".diffusionad").mkdir()
    fill(disk)
    with pytest.raises(OutputError, match=f"the disk at {disk}"):
        train(plan(golden, run, overwrite=True))
    assert contents(run) == before


def test_a_full_disk_in_export_is_named_and_nothing_is_left_nor_lost(
    tiny_run: Path, traced_before: Any, disk: Path
) -> None:
    (disk / "bundle.part").mkdir()
    (disk / "bundle.part" / "mine.txt").touch()
    fill(disk)
    arguments = ["export", str(tiny_run), "--output", str(disk / "bundle")]
    with traced_before(*NETWORK_STEPS):
        result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert f"the disk at {disk}" in result.output
    assert sorted(contents(disk)) == ["bundle.part/mine.txt", "filler"]
    assert sorted(path.name for path in disk.iterdir()) == ["bundle.part", "filler"]
