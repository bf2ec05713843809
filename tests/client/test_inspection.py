"""What an answer can be asked for: its regions, its picture, its JSON, its pickle."""

from __future__ import annotations

import copy
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusionad_client import (
    ArgumentError,
    DiffusionADError,
    ImageError,
    Inspection,
    Thresholds,
    Timings,
    Verdict,
)
from diffusionad_client.pages import pictures

MAP = np.zeros((32, 32), np.float32)
MAP[4:8, 16:20] = 0.75
MAP[20, 3] = 0.625


def inspection(**changes: Any) -> Inspection:
    fields: dict[str, Any] = {
        "score": 0.8,
        "verdict": Verdict.NG,
        "thresholds": Thresholds(0.3, 0.6),
        "anomaly_map": MAP.copy(),
        "reconstruction": np.zeros((32, 32, 3), np.uint8),
        "pixel_threshold": 0.5,
        "model": "screw",
        "version": "1",
        "release": "a" * 64,
        "timings": Timings(0.1, 0.2, 0.3),
    }
    return Inspection(**(fields | changes))


def photograph(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_the_arrays_cannot_be_written_to_and_those_that_were_given_can() -> None:
    given = MAP.copy()
    found = inspection(anomaly_map=given)
    for array in (found.anomaly_map, found.reconstruction):
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
    given[0, 0] = 1


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_pickled_inspection_is_the_same_and_as_safe(duplicate: Any) -> None:
    found = inspection(size=(480, 640), request_id="7", server="line:8001")
    same = duplicate(found)
    assert same.to_dict() == found.to_dict()
    np.testing.assert_array_equal(same.anomaly_map, found.anomaly_map)
    assert not same.anomaly_map.flags.writeable
    assert not same.reconstruction.flags.writeable


def test_regions_are_the_maps_and_at_the_images_size_the_images() -> None:
    found = inspection(size=(320, 640))
    worst, small = found.regions()
    assert (worst.top, worst.left, worst.bottom, worst.right, worst.area) == (4, 16, 8, 20, 16)
    assert (worst.peak, small.peak, small.area) == (0.75, 0.625, 1)
    assert found.size is not None
    worst, small = found.regions_at(*found.size)
    assert (worst.top, worst.left, worst.bottom, worst.right) == (40, 320, 80, 400)
    assert (worst.area, small.area, worst.peak) == (16 * 200, 200, 0.75)


def test_the_area_is_a_percentage_of_the_image() -> None:
    assert inspection().area_percent == pytest.approx(100 * 17 / 1024)
    assert inspection(pixel_threshold=0.9).area_percent == 0


def test_a_value_at_the_pixel_threshold_belongs_to_a_defect() -> None:
    third = np.full((32, 32), 1 / 3, np.float32)
    assert inspection(anomaly_map=third, pixel_threshold=float(third[0, 0])).area_percent == 100


@pytest.mark.parametrize(
    "ask",
    [
        lambda found: found.area_percent,
        lambda found: found.regions(),
        lambda found: found.regions_at(5, 5),
        lambda found: found.overlay(photograph(4, 4)),
        lambda found: found.anomaly_map_at(5, 5),
    ],
)
def test_what_needs_a_map_says_how_to_get_one(ask: Any) -> None:
    with pytest.raises(DiffusionADError, match="anomaly_map=True"):
        ask(inspection(anomaly_map=None))


@pytest.mark.parametrize("shape", [(300, 400), (256, 256), (512, 100)])
def test_an_overlay_is_the_heat_map_of_score(shape: tuple[int, int]) -> None:
    image = photograph(*shape)
    heat_map = pictures.without_scale(pictures.heat_map(image, MAP, 0.5))
    np.testing.assert_array_equal(inspection().overlay(image), np.asarray(heat_map))


def test_an_overlay_has_the_images_own_size_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    image = photograph(1200, 900)
    before = image.copy()
    Image.fromarray(image).save(tmp_path / "part.png")
    drawn = inspection(size=(1200, 900)).overlay(image)
    assert (drawn.shape, drawn.dtype) == ((1200, 900, 3), np.uint8)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(drawn[:50, :50], image[:50, :50])
    assert (drawn != image).any()
    np.testing.assert_array_equal(inspection().overlay(tmp_path / "part.png"), drawn)
    np.testing.assert_array_equal(inspection().overlay(image[..., ::-1], color="bgr"), drawn)


def test_an_overlay_of_a_deep_image_is_as_bright_as_the_model_saw_it() -> None:
    grey = np.full((40, 40), 2048, np.uint16)
    assert tuple(inspection(depth=12).overlay(grey)[0, 0]) == (128, 128, 128)
    assert tuple(inspection().overlay(grey)[0, 0]) == (8, 8, 8)


def test_an_overlay_over_another_image_is_refused() -> None:
    with pytest.raises(ImageError, match=r"40 x 50 pixels \(H x W\), .* 50 x 40: give that one"):
        inspection(size=(50, 40)).overlay(photograph(40, 50))


@pytest.mark.parametrize(("height", "width"), [(0, 4), (4, 2**20), ("4", 4)])
def test_regions_in_an_image_of_no_size_are_refused(height: Any, width: Any) -> None:
    with pytest.raises(ArgumentError, match="height and width"):
        inspection().regions_at(height, width)


def test_the_dictionary_is_json_and_has_the_regions_in_the_image() -> None:
    document = json.loads(json.dumps(inspection(size=(320, 320)).to_dict(), allow_nan=False))
    assert document == {
        "score": 0.8,
        "verdict": "NG",
        "thresholds": {"accept": 0.3, "reject": 0.6},
        "pixel_threshold": 0.5,
        "area_percent": pytest.approx(100 * 17 / 1024),
        "regions": [
            {
                "top": 40, "left": 160, "bottom": 80, "right": 200,
                "area": 1600, "peak": 0.75, "mean": 0.75,
            },
            {
                "top": 200, "left": 30, "bottom": 210, "right": 40,
                "area": 100, "peak": 0.625, "mean": 0.625,
            },
        ],
        "regions_size": [320, 320],
        "size": [320, 320],
        "model": "screw",
        "version": "1",
        "release": "a" * 64,
        "roi": None,
        "server": "",
        "request_id": "",
        "timings": {"decode_s": 0.1, "resize_s": 0.2, "request_s": 0.3},
    }  # fmt: skip


def test_the_dictionary_without_a_map_or_a_number_is_json_too() -> None:
    found = inspection(anomaly_map=None, score=float("nan"))
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["score"] is None
    assert document["regions"] is document["area_percent"] is document["regions_size"] is None
    assert inspection().to_dict()["regions_size"] == [32, 32]


def test_it_is_shown_in_one_short_line() -> None:
    assert repr(inspection()) == (
        "<Inspection NG: score 0.8000 by screw version 1, release aaaaaaaaaaaa>"
    )


def test_a_client_says_how_large_the_image_was(triton: Any) -> None:
    from diffusionad_client import Client

    buffer = io.BytesIO()
    Image.fromarray(photograph(50, 70)).save(buffer, "PNG")
    with Client(triton.url) as client:
        for source in (photograph(50, 70), buffer.getvalue(), np.zeros((50, 70), np.uint16)):
            assert client.inspect(source).size == (50, 70)
