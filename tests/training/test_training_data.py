"""What `train` takes from a folder, and what it says of it."""

from __future__ import annotations

import os
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusionad_client import regular_files
from diffusionad_training.config import Config
from diffusionad_training.config.settings import changed, with_settings
from diffusionad_training.data import digest, duplicates
from diffusionad_training.data.split import hold_out
from diffusionad_training.errors import DataError
from diffusionad_training.fit.data import TrainingData, read_training_data
from diffusionad_training.fit.plan import TrainingPlan


def picture(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))


def fill(folder: Path, seeds: range) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        picture(seed).save(folder / f"{seed:03}.png")
    return folder


def taken(data: Path, config: Config, seed: int = 0) -> tuple[TrainingData, list[str]]:
    lines: list[str] = []
    plan = TrainingPlan(data, data / "run", config, held_out_share=0.2, seed=seed)
    return read_training_data(plan, lines.append), lines


@pytest.mark.parametrize("seed", range(5))
def test_copies_of_an_image_are_on_one_side_of_the_split(
    tmp_path: Path, tiny_config: Config, seed: int
) -> None:
    fill(tmp_path, range(10))
    for index in range(10):
        shutil.copy(tmp_path / f"{index:03}.png", tmp_path / f"copy of {index:03}.png")
    data, lines = taken(tmp_path, tiny_config, seed)
    trained = {image.tobytes() for image in data.images}
    assert len(data.held_out) == 4
    assert not trained & {image.tobytes() for image in data.held_out}
    assert "10 good images are copies of others: on one side of the split with them" in lines


def test_without_copies_the_split_is_as_it_was(tmp_path: Path, tiny_config: Config) -> None:
    data, lines = taken(fill(tmp_path, range(10)), tiny_config)
    names = [f"{index:03}.png" for index in range(10)]
    assert data.held_out_names == tuple(names[index] for index in hold_out(names, 0.2, 0))
    assert lines == ["8 good images to train on, 2 held out for the thresholds"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("123456")), max_size=20))
def test_groups_that_share_a_content_are_one(images: list[tuple[str, str]]) -> None:
    groups, contents = [group for group, _ in images], [content for _, content in images]
    joined = duplicates.joined(groups, contents)
    for given_names in (groups, contents):  # alike before, alike after
        assert len(set(zip(given_names, joined, strict=True))) == len(set(given_names))
    links = {(f"group {g}", f"content {c}") for g, c in images}
    pieces: list[set[str]] = []
    for link in links:
        touched = [piece for piece in pieces if piece & set(link)]
        pieces = [piece for piece in pieces if piece not in touched]
        pieces.append(set(link).union(*touched))
    assert len(set(joined)) == len(pieces)


def test_training_images_that_are_test_images_too_are_told(
    tmp_path: Path, tiny_config: Config
) -> None:
    fill(tmp_path / "train/good", range(6))
    fill(tmp_path / "test/good", range(4, 9))
    _, lines = taken(tmp_path, tiny_config)
    assert "Warning: 2 of the images to train on are test images too" in lines[0]


def save_deep(path: Path, largest: int, seed: int = 0) -> None:
    drawn = np.random.default_rng(seed).integers(0, largest, (64, 64)).astype(np.uint16)
    drawn[0, 0] = largest
    Image.fromarray(drawn).save(path)


@pytest.mark.parametrize(("largest", "bits"), [(3773, 12), (4095, 12), (1000, 10), (200, 8)])
def test_16_bit_images_that_stop_early_are_told_with_what_to_set(
    tmp_path: Path, tiny_config: Config, largest: int, bits: int
) -> None:
    for index in range(3):
        save_deep(tmp_path / f"{index}.png", largest, index)
    dark, lines = taken(tmp_path, tiny_config)
    (line,) = (line for line in lines if "16-bit images" in line)
    assert f"stop at {largest}, " in line
    (setting,) = re.findall(r"--set (\S+)=(\d+)", line)
    assert setting[1] == str(bits)
    bright, lines = taken(tmp_path, with_settings(tiny_config, [setting]))
    assert not any("16-bit images" in line for line in lines)
    assert bright.images.max() > 0.9 * 255 * largest / ((1 << bits) - 1)
    assert dark.images.max() <= 16


def test_16_bit_images_that_are_bright_or_say_their_depth_are_not_spoken_of(
    tmp_path: Path, tiny_config: Config
) -> None:
    for index in range(3):
        save_deep(tmp_path / f"{index}.png", 40_000, index)
    _, lines = taken(tmp_path, tiny_config)
    assert not any("16-bit images" in line for line in lines)


def test_a_pixel_that_does_not_fit_into_the_depth_ends_the_training(
    tmp_path: Path, tiny_config: Config
) -> None:
    for index in range(3):
        save_deep(tmp_path / f"{index}.png", 5000, index)
    with pytest.raises(DataError, match=r"(?s)3 of 3 images cannot be used.*a pixel is 5000"):
        taken(tmp_path, changed(tiny_config, {"depth": 12}))


def test_a_drive_that_does_not_answer_ends_the_training(
    tmp_path: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, range(3))
    back = threading.Event()
    monkeypatch.setattr(regular_files, "_read", lambda path: back.wait(30))
    monkeypatch.setattr(digest, "READ_S", 0.05)
    with pytest.raises(DataError, match=r"000\.png: not read within 0\.05 s; is its drive there"):
        taken(tmp_path, tiny_config)
    back.set()


def test_images_of_one_colour_are_told(tmp_path: Path, tiny_config: Config) -> None:
    fill(tmp_path, range(3))
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    _, lines = taken(tmp_path, tiny_config)
    assert "Warning: 1 of 4 good images show one colour throughout" in lines[-1]


def test_images_that_are_all_alike_are_trained_on_and_told(
    tmp_path: Path, tiny_config: Config
) -> None:
    for index in range(6):
        picture(0).save(tmp_path / f"{index}.png")
    data, lines = taken(tmp_path, tiny_config)
    assert (len(data.images), len(data.held_out)) == (5, 1)
    assert lines[0].startswith("Warning: all good images are copies of each other")
    assert lines[-1].startswith("Warning: all good images look the same")


def test_what_is_left_out_is_told(tmp_path: Path, tiny_config: Config) -> None:
    fill(tmp_path, range(3))
    for name in ("._000.png", "notes.txt", "groups.CSV"):
        (tmp_path / name).touch()
    _, lines = taken(tmp_path, tiny_config)
    assert lines[:2] == [
        "left out: 1 no images by their suffix: notes.txt",
        "left out: 1 hidden: ._000.png",
    ]


def test_names_that_are_not_utf_8_are_trained_on(tmp_path: Path, tiny_config: Config) -> None:
    fill(tmp_path, range(3))
    try:
        picture(9).save(os.fsdecode(os.fsencode(tmp_path) + b"/gr\xfcn.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    data, _ = taken(tmp_path, tiny_config)
    assert len(data.images) + len(data.held_out) == 4
    assert len(data.digest) == 64
