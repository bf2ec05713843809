from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusionad_client.artifacts import roi
from diffusionad_client.errors import ImageError


def half(size: int = 8) -> roi.Mask:
    mask = np.zeros((size, size), bool)
    mask[:, : size // 2] = True
    return mask


def test_a_region_is_named_by_a_digest_that_never_changes() -> None:
    assert roi.digest(half())[:12] == "6d507270497e"


def test_another_region_has_another_digest() -> None:
    assert roi.digest(half()) != roi.digest(~half())


def test_a_mask_is_read_as_it_was_drawn(tmp_path: Path) -> None:
    path = tmp_path / "roi.png"
    path.write_bytes(roi.to_png(half()))
    np.testing.assert_array_equal(roi.read(path), half())


@pytest.mark.parametrize("level", [1, 128, 255])
def test_whatever_is_not_black_is_inside(tmp_path: Path, level: int) -> None:
    path = tmp_path / "roi.png"
    Image.fromarray(half().astype(np.uint8) * level).save(path)
    np.testing.assert_array_equal(roi.read(path), half())


def test_a_colour_is_not_black(tmp_path: Path) -> None:
    path = tmp_path / "roi.png"
    Image.new("RGB", (4, 4), (0, 0, 3)).save(path)
    assert roi.read(path).all()


def test_a_mask_of_another_size_is_stretched_without_grey_edges(tmp_path: Path) -> None:
    path = tmp_path / "roi.png"
    path.write_bytes(roi.to_png(half(64)))
    np.testing.assert_array_equal(roi.read(path, 8), half(8))
    np.testing.assert_array_equal(roi.read(path, 128), half(128))


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "roi.png").write_text("no image")
    with pytest.raises(ImageError, match=r"roi\.png"):
        roi.read(tmp_path / "roi.png")
