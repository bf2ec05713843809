"""The procedural demo product: its pictures, its defects and the folder they lie in."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from diffusionad_client.cli import main
from diffusionad_tools.demo_data import clip, dataset, geometry, marking, products
from diffusionad_tools.demo_data.dataset import DemoDataError, DemoSet, Item, draw, write
from diffusionad_tools.demo_data.defects import CLIP_DEFECTS, DEFECTS
from diffusionad_tools.demo_data.part import Part, sample_part
from diffusionad_tools.demo_data.product import Product
from diffusionad_tools.demo_data.rendering import photograph, render, render_scene
from diffusionad_tools.demo_data.texture import smooth_noise

SIZE = 128
SMALL = DemoSet(train=3, test_good=2, defective=2, size=64, seed=5)


def a_part(**changes: float) -> Part:
    part = sample_part(np.random.default_rng(1), SIZE)
    return dataclasses.replace(part, **changes)


def brightness_at(part: Part, x: float, y: float) -> float:
    """Mean grey level of a small spot, given in the part's own axes."""
    part_x, part_y = part.coordinates()
    spot = np.hypot(part_x - x, part_y - y) < 0.03
    return float(render(part)[spot].mean())


def border(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The outermost values of a plane."""
    return np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# The product


def test_the_bore_and_every_hole_are_dark_in_the_bright_plate() -> None:
    part = a_part()
    plate = brightness_at(part, -0.35, -0.5)
    holes = [brightness_at(part, hole.x, hole.y) for hole in (geometry.BORE, *geometry.HOLES)]
    assert max(holes) < plate / 3


@pytest.mark.parametrize("index", range(len(geometry.HOLES)))
def test_a_hole_that_was_never_drilled_is_as_bright_as_the_plate(index: int) -> None:
    part = a_part(missing_hole=index)
    hole = geometry.HOLES[index]
    assert brightness_at(part, hole.x, hole.y) > 0.7 * brightness_at(part, -0.35, -0.5)


def test_the_whole_plate_lies_in_the_picture_for_every_position() -> None:
    for seed in range(200):
        x, y = sample_part(np.random.default_rng(seed), 64).coordinates()
        inside = geometry.plate_distance(x, y) < 0
        assert not border(inside).any()


def test_a_larger_picture_shows_the_same_part_in_more_detail() -> None:
    part = a_part(noise=0.0)
    large = Image.fromarray(render(dataclasses.replace(part, size=2 * SIZE)))
    shrunk = np.asarray(large.reduce(2)).astype(float)
    assert np.abs(shrunk - render(part)).mean() < 4.0


def test_parts_differ_from_one_another() -> None:
    pictures = [draw(Item("train", "good", n), size=64, seed=0)[0].astype(float) for n in range(4)]
    differences = [np.abs(a - b).mean() for a in pictures for b in pictures if a is not b]
    assert min(differences) > 3.0


def test_light_from_the_left_makes_the_left_brighter() -> None:
    picture = render(a_part(light_angle=np.pi, light_gradient=0.16, angle=0.0, vignetting=0.0))
    plate = picture[SIZE // 4 : -SIZE // 4]
    assert plate[:, 10:30].mean() > plate[:, -30:-10].mean() + 5


def test_warm_light_is_redder_than_cold_light() -> None:
    warm, cold = (render(a_part(warmth=warmth)).mean((0, 1)) for warmth in (0.04, -0.04))
    assert warm[0] - warm[2] > cold[0] - cold[2] + 5


def test_the_outline_s_outward_vector_is_the_gradient_of_its_distance() -> None:
    x, y = a_part(angle=0.0).coordinates()
    distance = geometry.plate_distance(x, y)
    slope_y, slope_x = np.gradient(distance, 2 / SIZE)
    nx, ny = geometry.plate_outward(x, y)
    near = np.abs(distance) < 0.05
    assert np.median(slope_x[near] * nx[near] + slope_y[near] * ny[near]) == pytest.approx(
        1.0, abs=0.03
    )


def test_the_marking_has_a_glyph_for_each_letter_and_an_empty_border() -> None:
    dots = marking.dot_matrix()
    assert dots.shape == (9, 6 * len(marking.TEXT) + 1)
    assert not border(dots).any()


def test_smooth_noise_repeats_after_one_turn_so_that_it_closes_around_a_circle() -> None:
    u, v = np.linspace(0, 1, 50, dtype=np.float32), np.full(50, 0.3, dtype=np.float32)
    once, again = (smooth_noise(np.random.default_rng(3), 8, 5, u + turn, v) for turn in (0, 1))
    np.testing.assert_allclose(once, again, atol=1e-4)


# The defects


@pytest.mark.parametrize("label", DEFECTS)
@pytest.mark.parametrize("number", range(4))
def test_a_defect_differs_from_its_defect_free_twin_inside_its_mask(
    label: str, number: int
) -> None:
    item = Item("test", label, number)
    picture, mask = draw(item, size=SIZE, seed=0, product=Product.PLATE)
    twin = render(sample_part(item.generator(0), SIZE))
    difference = np.abs(picture.astype(int) - twin).max(axis=-1)
    assert mask is not None
    assert mask.sum() >= 20
    assert difference[mask].mean() > 15  # grey levels: plain to see
    assert difference[~mask].sum() < 0.15 * difference.sum()


@pytest.mark.parametrize("label", [label for label in DEFECTS if label != "missing_hole"])
def test_a_defect_lies_on_the_metal(label: str) -> None:
    for number in range(8):
        item = Item("test", label, number)
        _, mask = draw(item, size=SIZE, seed=0, product=Product.PLATE)
        part = sample_part(item.generator(0), SIZE)
        assert geometry.metal_distance(*part.coordinates())[mask].max() <= part.pixel


def test_a_good_picture_has_no_mask() -> None:
    assert draw(Item("test", "good", 0), size=SIZE, seed=0)[1] is None


@pytest.mark.parametrize("label", DEFECTS)
def test_a_defect_leaves_the_scene_it_was_given_as_it_was(label: str) -> None:
    part = a_part()
    scene = render_scene(part)
    DEFECTS[label](scene, part, np.random.default_rng(0))
    np.testing.assert_array_equal(photograph(scene, part), render(part))


# The product with a clip


def a_part_with_a_clip(number: int = 0, **changes: bool) -> Part:
    part = products.sample(Product.CLIP, np.random.default_rng(number), SIZE)
    assert part.clip is not None
    return dataclasses.replace(part, clip=dataclasses.replace(part.clip, **changes))


def test_a_clip_changes_nothing_but_the_place_where_it_sits() -> None:
    part = a_part_with_a_clip()
    plain = dataclasses.replace(part, clip=None)
    changed = np.abs(render(part).astype(int) - render(plain)).max(axis=-1) > 0
    assert part.clip is not None
    assert changed[part.clip.distance(*part.coordinates()) < -part.pixel].mean() > 0.95
    assert part.clip.distance(*part.coordinates())[changed].max() < 0.1


def test_the_clip_is_dark_its_stud_is_brass_and_without_it_its_hole_stands_open() -> None:
    part = a_part_with_a_clip()
    plate = brightness_at(part, 0.35, -0.55)
    assert brightness_at(part, clip.X, clip.Y + 0.08) < plate / 3
    x, y = part.coordinates()
    stud = render(part)[np.hypot(x - clip.X, y - clip.Y + 0.075) < 0.02].mean(axis=0)
    assert stud[0] > stud[2] + 30
    missing = a_part_with_a_clip(is_missing=True)
    hole = np.hypot(x - clip.X, y - clip.Y) < 0.5 * clip.PIN_HOLE.radius
    assert render(missing)[hole].mean() < plate / 3
    assert brightness_at(missing, clip.X, clip.Y + 0.08) > 0.7 * plate


@pytest.mark.parametrize("turn", np.linspace(0, 2 * np.pi, 9)[:-1])
def test_the_clip_lies_on_metal_however_it_is_turned(turn: float) -> None:
    part = dataclasses.replace(a_part(), clip=clip.Clip(turn))
    x, y = part.coordinates()
    assert part.clip is not None
    under = part.clip.distance(x, y) < 0
    assert under.any()
    assert geometry.metal_distance(x, y)[under].max() < -part.pixel
    assert (np.hypot(x, y)[under] > geometry.BOSS_RADIUS).all()


@pytest.mark.parametrize("label", CLIP_DEFECTS)
@pytest.mark.parametrize("number", range(4))
def test_a_missing_or_turned_clip_differs_from_its_good_twin_inside_its_mask(
    label: str, number: int
) -> None:
    item = Item("test", label, number)
    picture, mask = draw(item, size=SIZE, seed=0, product=Product.CLIP)
    twin = render(products.sample(Product.CLIP, item.generator(0), SIZE))
    difference = np.abs(picture.astype(int) - twin).max(axis=-1)
    assert mask is not None
    assert mask.sum() >= 100
    assert difference[mask].mean() > 15
    # Its shadow changes with it, and is no part of the defect.
    assert difference[~mask].sum() < 0.25 * difference.sum()


def test_a_scratch_never_lies_on_the_clip() -> None:
    for number in range(8):
        item = Item("test", "scratch", number)
        _, mask = draw(item, size=SIZE, seed=0, product=Product.CLIP)
        part = products.sample(Product.CLIP, item.generator(0), SIZE)
        assert part.clip is not None
        assert part.clip.distance(*part.coordinates())[mask].min() >= -part.pixel


def test_a_set_with_clips_has_two_more_classes_on_the_same_plates(tmp_path: Path) -> None:
    demo = DemoSet(train=1, test_good=1, defective=1, size=64, product=Product.CLIP)
    write(demo, tmp_path / "demo")
    labels = sorted(path.name for path in (tmp_path / "demo" / "test").iterdir())
    assert labels == sorted(["good", *DEFECTS, "missing_component", "turned_component"])
    assert len([name for name in contents(tmp_path / "demo") if "_mask" not in name]) == len(demo)
    item = Item("train", "good", 0)
    plate, clipped = (
        dataclasses.replace(products.sample(product, item.generator(0), 64), clip=None)
        for product in Product
    )
    assert plate == clipped


# The set


def test_the_folder_has_the_layout_of_mvtec(tmp_path: Path) -> None:
    write(SMALL, tmp_path / "demo")
    expected = {f"train/good/{n:03d}.png" for n in range(3)}
    labels = DEFECTS | CLIP_DEFECTS
    expected |= {f"test/{label}/{n:03d}.png" for label in ("good", *labels) for n in range(2)}
    expected |= {f"ground_truth/{label}/{n:03d}_mask.png" for label in labels for n in range(2)}
    assert set(contents(tmp_path / "demo")) == expected


def test_masks_are_black_and_white_and_as_large_as_their_pictures(tmp_path: Path) -> None:
    write(SMALL, tmp_path / "demo")
    for path in (tmp_path / "demo" / "ground_truth").rglob("*.png"):
        with Image.open(path) as mask:
            assert (mask.mode, mask.size) == ("L", (64, 64))
            assert set(np.unique(np.asarray(mask))) == {0, 255}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    write(SMALL, tmp_path / "once")
    write(SMALL, tmp_path / "again")
    assert contents(tmp_path / "once") == contents(tmp_path / "again")


def test_no_two_pictures_are_the_same_within_or_between_seeds(tmp_path: Path) -> None:
    write(SMALL, tmp_path / "five")
    write(dataclasses.replace(SMALL, seed=6), tmp_path / "six")
    pictures = [
        data
        for folder in ("five", "six")
        for name, data in contents(tmp_path / folder).items()
        if not name.startswith("ground_truth")
    ]
    assert len(set(pictures)) == 2 * len(SMALL)


def test_a_smaller_set_is_a_part_of_a_larger_one(tmp_path: Path) -> None:
    write(SMALL, tmp_path / "small")
    write(DemoSet(train=5, test_good=3, defective=3, size=64, seed=5), tmp_path / "large")
    assert contents(tmp_path / "small").items() < contents(tmp_path / "large").items()


def test_a_new_defect_class_is_one_table_entry_and_leaves_the_others_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(SMALL, tmp_path / "before")
    monkeypatch.setitem(DEFECTS, "bruise", DEFECTS["dent"])
    write(SMALL, tmp_path / "after")
    added = contents(tmp_path / "after").items() - contents(tmp_path / "before").items()
    assert {name for name, _ in added} == {
        f"{folder}/bruise/{n:03d}{suffix}.png"
        for folder, suffix in (("test", ""), ("ground_truth", "_mask"))
        for n in range(2)
    }
    assert contents(tmp_path / "before").items() < contents(tmp_path / "after").items()


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    write(SMALL, tmp_path / "demo")
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == [
        "ground_truth",
        "test",
        "train",
    ]


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(DemoDataError, match="not an empty folder"):
        write(SMALL, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_set_that_is_interrupted_leaves_nothing_behind(tmp_path: Path) -> None:
    done = []

    def interrupt() -> None:
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(SMALL, tmp_path / "demo", advance=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DemoDataError, match="demo.*cannot be written there.*file"):
        write(SMALL, tmp_path / "file" / "demo")


def test_a_full_disk_is_named_with_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_on_a_full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(dataset, "_save", save_on_a_full_disk)
    with pytest.raises(DemoDataError, match="No space left.*the disk at .* MiB free; make room"):
        write(SMALL, tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"train": -1},
        {"seed": -1},
        {"size": dataset.SIZES[0] - 1},
        {"size": dataset.SIZES[1] + 1},
        {"train": 0, "test_good": 0, "defective": 0},
    ],
)
def test_a_set_that_cannot_be_made_is_refused_on_construction(wrong: dict[str, int]) -> None:
    with pytest.raises(DemoDataError, match=r"DemoSet\(|must lie in"):
        DemoSet(**wrong)


# The command


def test_the_command_writes_the_set_and_says_what_it_holds(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    options = ["--train", "2", "--test-good", "1", "--defective", "1", "--size", "64"]
    result = CliRunner().invoke(main, ["demo-data", str(output), *options])
    assert result.exit_code == 0, result.output
    defective = len(DEFECTS | CLIP_DEFECTS)
    assert result.output == (
        f"{output}: 2 good parts to train on; to test on, 1 good and {defective} defective\n"
    )
    assert contents(output)


def test_the_command_refuses_a_folder_in_use_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    result = CliRunner().invoke(main, ["demo-data", str(tmp_path)])
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {tmp_path}: exists and is not an empty folder")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("size", [dataset.SIZES[0] - 1, dataset.SIZES[1] + 1])
def test_the_command_calls_a_size_out_of_range_wrong_usage(tmp_path: Path, size: int) -> None:
    result = CliRunner().invoke(main, ["demo-data", str(tmp_path / "demo"), "--size", str(size)])
    assert result.exit_code == 2
    assert "--size" in result.output
