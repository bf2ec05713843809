"""Metrics against torchmetrics, hand-computed cases and bounds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from diffusionad_training.evaluation.metrics import (
    PRO_LIMIT,
    PixelMetrics,
    image_auroc,
    image_average_precision,
    image_f1_max,
    image_roc,
)


def measured(*pairs: tuple[np.ndarray, np.ndarray]) -> PixelMetrics:
    pixels = PixelMetrics()
    for anomaly_map, mask in pairs:
        pixels.update(anomaly_map.astype(np.float32), mask)
    return pixels


def measured_inside(inside: np.ndarray, *pairs: tuple[np.ndarray, np.ndarray]) -> PixelMetrics:
    pixels = PixelMetrics()
    for anomaly_map, mask in pairs:
        pixels.update(anomaly_map.astype(np.float32), mask, inside)
    return pixels


def random_pair(seed: int, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = rng.random((size, size)) < 0.2
    # Values crowd near 0, as a sigmoid's do.
    anomaly_map = 10 ** rng.uniform(-6, 0, (size, size)) * np.where(mask, 1.0, 0.3)
    return anomaly_map.astype(np.float32), mask


@settings(max_examples=25)
@given(st.integers(min_value=0, max_value=10_000))
def test_streamed_pixel_metrics_agree_with_torchmetrics(seed: int) -> None:
    pairs = [random_pair(seed), random_pair(seed + 1)]
    pixels = measured(*pairs)
    maps = torch.tensor(np.stack([p[0] for p in pairs])).flatten()
    masks = torch.tensor(np.stack([p[1] for p in pairs])).flatten().int()
    assert pixels.auroc == pytest.approx(float(binary_auroc(maps, masks)), abs=1e-4)
    assert pixels.average_precision == pytest.approx(
        float(binary_average_precision(maps, masks)), abs=2e-3
    )


def test_a_perfect_map_scores_one() -> None:
    mask = np.zeros((16, 16), dtype=bool)
    mask[2:5, 2:5] = True
    pixels = measured((np.where(mask, 0.9, 0.1), mask))
    assert pixels.auroc == pytest.approx(1)
    assert pixels.average_precision == pytest.approx(1)
    assert pixels.pro == pytest.approx(1)


def test_a_constant_map_knows_nothing() -> None:
    mask = np.zeros((16, 16), dtype=bool)
    mask[2:5, 2:5] = True
    pixels = measured((np.full((16, 16), 0.5), mask))
    assert pixels.auroc == pytest.approx(0.5)
    assert pixels.pro == pytest.approx(0.15)  # half the area under the diagonal up to 0.3


def test_pro_weighs_regions_equally_whatever_their_size() -> None:
    # A region of 64 pixels is found at once, one of 1 pixel never.
    mask = np.zeros((32, 32), dtype=bool)
    mask[:8, :8] = True
    mask[20, 20] = True
    anomaly_map = np.full((32, 32), 0.1)
    anomaly_map[:8, :8] = 0.9
    anomaly_map[20, 20] = 0.0
    # Overlap is 1/2 for every false-positive rate below 1.
    assert measured((anomaly_map, mask)).pro == pytest.approx(0.5)


def test_pro_is_interpolated_at_its_limit() -> None:
    # 100 normal pixels, 40 of them as high as the single defect pixel: the curve
    # rises in one straight line from (0, 0) to (0.4, 1), so at 0.3 it is 0.75.
    mask = np.zeros((1, 101), dtype=bool)
    mask[0, 0] = True
    anomaly_map = np.full((1, 101), 0.2)
    anomaly_map[0, :41] = 0.8
    assert measured((anomaly_map, mask)).pro == pytest.approx(0.75 * 0.3 / 2 / 0.3)


def test_diagonal_neighbours_are_one_region() -> None:
    mask = np.eye(4, dtype=bool)
    anomaly_map = np.full((4, 4), 0.1)
    anomaly_map[0, 0] = 0.9  # one of four pixels of one region
    anomaly_map[mask & (anomaly_map < 0.5)] = 0.0
    assert measured((anomaly_map, mask)).pro == pytest.approx(0.25)


def test_good_images_count_as_false_positives() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[0, 0] = True
    clean = np.where(mask, 0.5, 0.1)
    alone = measured((clean, mask)).pro
    noisy_good = np.full((8, 8), 0.9)
    assert alone == pytest.approx(1)
    assert measured((clean, mask), (noisy_good, np.zeros((8, 8), dtype=bool))).pro == pytest.approx(
        0
    )


def test_order_does_not_matter() -> None:
    pairs = [random_pair(seed) for seed in range(3)]
    assert measured(*pairs).pro == pytest.approx(measured(*reversed(pairs)).pro)


def test_pixel_metrics_without_a_defect_are_undefined() -> None:
    pixels = measured((np.full((8, 8), 0.3), np.zeros((8, 8), dtype=bool)))
    assert pixels.auroc is None
    assert pixels.average_precision is None
    assert pixels.pro is None


def test_image_metrics_of_one_class_are_undefined() -> None:
    assert image_auroc([0.1, 0.2], [True, True]) is None
    assert image_average_precision([0.1, 0.2], [False, False]) is None


def test_image_auroc_counts_ties_half() -> None:
    assert image_auroc([0.5, 0.5], [False, True]) == pytest.approx(0.5)
    assert image_auroc([0.1, 0.9, 0.5], [False, True, True]) == pytest.approx(1)


def test_a_map_of_another_size_than_its_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        PixelMetrics().update(np.zeros((4, 4), np.float32), np.zeros((8, 8), bool))


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=30))
def test_f1_max_is_the_best_over_every_threshold(pairs: list[tuple[int, bool]]) -> None:
    scores, defective = [s / 8 for s, _ in pairs], [d for _, d in pairs]
    best, threshold = image_f1_max(scores, defective)
    if len(set(defective)) < 2:
        assert (best, threshold) == (None, None)
        return

    def f1(limit: float) -> float:
        hits = sum(s >= limit and d for s, d in zip(scores, defective, strict=True))
        return 2 * hits / (sum(s >= limit for s in scores) + sum(defective))

    assert best == pytest.approx(max(f1(s) for s in scores))
    assert threshold is not None
    assert f1(threshold) == pytest.approx(best)


def figures(pixels: PixelMetrics) -> list[float | None]:
    return [pixels.auroc, pixels.average_precision, pixels.pro]


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.2, 1))
def test_pixels_outside_the_region_of_interest_cannot_change_a_figure(
    seed: int, share: float
) -> None:
    anomaly_map, mask = random_pair(seed)
    inside = np.random.default_rng(seed + 1).random(mask.shape) < share
    before = measured_inside(inside, (anomaly_map, mask))
    loud = np.where(inside, anomaly_map, 1.0)
    assert figures(measured_inside(inside, (loud, mask))) == figures(before)
    everywhere = measured_inside(np.ones_like(mask), (anomaly_map, mask))
    assert figures(everywhere) == figures(measured((anomaly_map, mask)))


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_auroc_and_ap_are_those_of_the_pixels_inside(seed: int) -> None:
    anomaly_map, mask = random_pair(seed)
    inside = np.random.default_rng(seed + 1).random(mask.shape) < 0.5
    pixels = measured_inside(inside, (anomaly_map, mask))
    values, truth = torch.tensor(anomaly_map[inside]), torch.tensor(mask[inside]).int()
    assert pixels.auroc == pytest.approx(float(binary_auroc(values, truth)), abs=1e-4)
    assert pixels.average_precision == pytest.approx(
        float(binary_average_precision(values, truth)), abs=2e-3
    )


def test_a_region_cut_by_the_region_of_interest_counts_by_its_part_inside() -> None:
    # Of the first region, 8 x 8, the upper half lies inside and is found; the second,
    # 2 x 2, lies inside and is not. Each is half of the overlap, whatever was cut off.
    mask = np.zeros((32, 32), dtype=bool)
    mask[:8, :8] = True
    mask[20:22, 20:22] = True
    inside = np.ones_like(mask)
    inside[4:8, :8] = False
    anomaly_map = np.full((32, 32), 0.1)
    anomaly_map[:4, :8] = 0.9
    anomaly_map[mask & (anomaly_map < 0.5)] = 0.0
    assert measured_inside(inside, (anomaly_map, mask)).pro == pytest.approx(0.5)
    assert measured((anomaly_map, mask)).pro == pytest.approx(0.25)  # half of one of two


def test_a_region_parted_by_the_region_of_interest_is_still_one() -> None:
    # A bar whose middle is outside: its two ends, of 2 and 1 pixels, are one region of 3.
    # The other region is never found: 2 of 3 pixels of one of two regions are.
    mask = np.zeros((9, 9), dtype=bool)
    mask[0, :6] = True
    mask[8, 8] = True
    inside = np.ones_like(mask)
    inside[0, 2:5] = False
    anomaly_map = np.where(mask, 0.0, 0.1)
    anomaly_map[0, :2] = 0.9
    assert measured_inside(inside, (anomaly_map, mask)).pro == pytest.approx(2 / 3 / 2)


def test_a_region_wholly_outside_is_no_region() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[0, 0] = mask[7, 7] = True
    inside = np.ones_like(mask)
    inside[7] = False
    anomaly_map = np.where(mask, 0.0, 0.1)
    anomaly_map[0, 0] = 0.9
    assert measured_inside(inside, (anomaly_map, mask)).pro == pytest.approx(1)
    inside[0, 0] = False
    assert measured_inside(inside, (anomaly_map, mask)).pro is None


def test_pixel_metrics_of_two_lots_add_up() -> None:
    pairs = [random_pair(seed) for seed in range(4)]
    total = measured(*pairs[:1]) + measured(*pairs[1:])
    assert figures(total) == pytest.approx(figures(measured(*pairs)))


def test_the_curves_have_the_areas_that_are_reported() -> None:
    pixels = measured(random_pair(1), random_pair(2))
    assert pixels.pro_curve is not None
    assert pixels.pro_curve.area / PRO_LIMIT == pytest.approx(pixels.pro)
    assert pixels.pro_curve.x[[0, -1]] == pytest.approx([0, PRO_LIMIT])
    assert pixels.precision_recall is not None
    assert pixels.precision_recall.area == pytest.approx(pixels.average_precision, abs=1e-2)
    scores, defective = [0.1, 0.4, 0.4, 0.9, 0.3], [False, True, False, True, True]
    roc = image_roc(scores, defective)
    assert roc is not None
    assert roc.area == pytest.approx(image_auroc(scores, defective))


def test_curves_of_one_class_are_undefined() -> None:
    assert image_roc([0.1, 0.2], [False, False]) is None
    pixels = measured((np.full((8, 8), 0.3), np.zeros((8, 8), dtype=bool)))
    assert pixels.pro_curve is None
    assert pixels.precision_recall is None
