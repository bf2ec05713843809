"""`evaluate` on a run: the figures, the JSON and wrong input."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from diffusionad_client.artifacts import roi
from diffusionad_client.artifacts.roi import to_png
from diffusionad_client.cli import main
from diffusionad_training.data.images import load_mask
from diffusionad_training.data.layout import read
from diffusionad_training.data.roi import read_roi
from diffusionad_training.evaluation.measure import measure
from diffusionad_training.evaluation.results import read_record
from diffusionad_training.evaluation.scorers import (
    REQUESTS_AT_ONCE,
    Scored,
    ServerScorer,
    TorchScorer,
)
from diffusionad_training.run.checkpoint import load_run


class MaskScorer:
    """Knows the answers: the map is the ground truth itself."""

    size = 80

    def score(self, paths):
        for path in paths:
            mask = path.parents[2] / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
            found = np.zeros((80, 80), np.float32)
            if mask.exists():
                found = np.asarray(Image.open(mask)).astype(np.float32) / 255
            yield Scored(float(found.max()), found)


def test_a_detector_that_knows_the_answers_is_perfect(tiny_data: Path) -> None:
    images = read(tiny_data).require_test()
    result = measure(MaskScorer(), tiny_data, images, detector="oracle").evaluation
    assert list(result.metrics.values()) == pytest.approx([1.0] * 6)
    assert list(result.by_class) == ["spot"]
    assert result.by_class["spot"].image_auroc == pytest.approx(1.0)
    assert result.by_class["spot"].pro == pytest.approx(1.0)
    assert len(result.images) == 6


def left_of(path: Path, column: int) -> Path:
    """Draw a region of interest at the images' size: what lies left of the column."""
    mask = np.zeros((80, 80), np.uint8)
    mask[:, :column] = 255
    Image.fromarray(mask).save(path)
    return path


class LoudOutside:
    """Knows the answers inside the region, and is wrong about all that lies outside."""

    size = 80

    def __init__(self, region: np.ndarray) -> None:
        self._region = region

    def score(self, paths):
        for scored in MaskScorer().score(paths):
            found = np.where(self._region, scored.anomaly_map, 1 - scored.anomaly_map)
            yield Scored(float(found[self._region].max()), found)


@pytest.mark.parametrize("column", [20, 40, 79])
def test_in_a_region_of_interest_only_the_pixels_inside_count(
    tiny_data: Path, tmp_path: Path, column: int
) -> None:
    region = read_roi(left_of(tmp_path / "roi.png", column), 80)
    images = read(tiny_data).require_test()
    result = measure(
        LoudOutside(region), tiny_data, images, detector="oracle", roi=region
    ).evaluation
    masks = [load_mask(image.mask, 80) for image in images if image.mask is not None]
    outside = sum(not (mask & region).any() for mask in masks)
    assert result.outside == result.by_class["spot"].outside == outside
    assert sum(row.outside for row in result.images) == outside
    assert len(result.images) == 6
    assert result.roi == roi.digest(region)
    expected = pytest.approx([1.0] * 6) if outside < 3 else [None] * 6
    assert list(result.metrics.values()) == expected


def test_defects_wholly_outside_count_neither_as_found_nor_as_false_alarms(
    tiny_data: Path, tmp_path: Path
) -> None:
    nothing = np.zeros((80, 80), bool)
    nothing[:4, :20] = True  # the spots begin at row 5
    result = measure(
        LoudOutside(nothing),
        tiny_data,
        read(tiny_data).require_test(),
        detector="oracle",
        roi=nothing,
    ).evaluation
    assert (result.outside, result.by_class["spot"].images) == (3, 0)
    assert set(result.metrics.values()) == {None}


def test_the_command_measures_and_scores_a_run_in_a_region(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    mask = left_of(tmp_path / "roi.png", 40)
    output = tmp_path / "evaluation.json"
    arguments = ["--run", str(tiny_run), "--roi", str(mask), "--output", str(output)]
    result = CliRunner().invoke(main, ["evaluate", str(tiny_data), *arguments])
    assert result.exit_code == 0, result.output
    model = load_run(tiny_run).model
    region = read_roi(mask, model.config.size)
    model.restrict_to(torch.from_numpy(region))
    images = [image.path for image in read(tiny_data).require_test()]
    expected = [one.score for one in TorchScorer(model).score(images)]
    document = json.loads(output.read_text())
    np.testing.assert_allclose([row["score"] for row in document["images"]], expected, atol=1e-6)
    assert document["roi"] == roi.digest(region)
    count = sum(row["outside"] for row in document["images"])
    assert (f"are not counted: {count}\n" in result.output) == (count > 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "roi.png: cannot be read"),
        (b"no image", "roi.png: not an image that can be read"),
        (to_png(np.zeros((80, 80), bool)), "roi.png: none of its pixels lie inside at 64 x 64"),
    ],
)
def test_a_region_of_no_use_is_one_clear_line(
    content: bytes | None, message: str, tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "roi.png").write_bytes(content)
    arguments = ["--run", str(tiny_run), "--roi", str(tmp_path / "roi.png")]
    result = CliRunner().invoke(main, ["evaluate", str(tiny_data), *arguments])
    assert result.exit_code == 1
    assert message in result.output
    assert "black" in result.output or "cannot be read" in result.output


class FastServer:
    """Answers at once, and counts."""

    def __init__(self) -> None:
        self.asked = 0

    def inspect(self, path, **options):
        self.asked += 1
        return SimpleNamespace(
            score=0.5, anomaly_map=np.zeros((8, 8), np.float32), reconstruction=None
        )


def test_answers_of_a_server_do_not_pile_up_before_they_are_measured() -> None:
    server = FastServer()
    scored = ServerScorer(server, "plates", 8).score([Path(str(n)) for n in range(200)])
    for number, _ in enumerate(scored, start=1):
        assert server.asked <= number + 2 * REQUESTS_AT_ONCE
    assert server.asked == 200


def test_one_class_alone_is_undefined_not_zero(tiny_data: Path) -> None:
    good = [image for image in read(tiny_data).require_test() if not image.is_defective]
    result = measure(MaskScorer(), tiny_data, good, detector="oracle").evaluation
    assert set(result.metrics.values()) == {None}


def test_the_command_writes_what_export_reads(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "evaluation.json"
    result = CliRunner().invoke(
        main, ["evaluate", str(tiny_data), "--run", str(tiny_run), "--output", str(output)]
    )
    assert result.exit_code == 0, result.output
    assert "image AUROC" in result.output
    record = read_record(output)
    assert record.detector == load_run(tiny_run).weights_digest
    assert record.roi is None
    assert all(value is None or 0 <= value <= 1 for value in record.metrics.values())
    assert len(json.loads(output.read_text())["images"]) == 6


def test_ways_to_denoise_are_set_side_by_side(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    output = tmp_path / "ablation.json"
    result = CliRunner().invoke(
        main,
        [
            *("evaluate", str(tiny_data), "--run", str(tiny_run), "--output", str(output)),
            *("--denoising", "large-step", "--denoising", "norm-guided"),
        ],
    )
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.output.splitlines()[1:]] == [
        *("large-step", "norm-guided")
    ]
    both = json.loads(output.read_text())
    scores = [[image["score"] for image in both[way]["images"]] for way in both]
    assert scores[0] != scores[1]


def test_noise_constants_are_set_side_by_side_with_their_spread(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    output = tmp_path / "seeds.json"
    seeds = ("--noise-seed", "3", "--noise-seed", "4")  # the run was trained, its own drawn, with 3
    arguments = ["--run", str(tiny_run), *seeds, "--output", str(output)]
    result = CliRunner().invoke(main, ["evaluate", str(tiny_data), *arguments])
    assert result.exit_code == 0, result.output
    first, second, spread = (line.rsplit(maxsplit=5) for line in result.output.splitlines()[1:])
    assert (first[0], second[0]) == ("norm-guided, noise 3", "norm-guided, noise 4")
    pro = abs(float(first[3]) - float(second[3]))
    assert float(spread[-2]) == pytest.approx(pro, abs=0.11)  # figures are rounded
    both = json.loads(output.read_text())
    scores = [[image["score"] for image in one["images"]] for one in both.values()]
    own = [
        one.score
        for one in TorchScorer(load_run(tiny_run).model).score(
            [image.path for image in read(tiny_data).require_test()]
        )
    ]
    np.testing.assert_allclose(scores[0], own, atol=1e-6)
    assert scores[1] != scores[0]


def test_figures_of_another_noise_constant_are_not_the_run_s(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    output = tmp_path / "seed.json"
    arguments = ["--run", str(tiny_run), "--noise-seed", "4", "--output", str(output)]
    result = CliRunner().invoke(main, ["evaluate", str(tiny_data), *arguments])
    assert result.exit_code == 0, result.output
    digest = load_run(tiny_run).weights_digest
    assert read_record(output).detector == f"{digest}, noise of seed 4"


def test_scores_do_not_depend_on_the_batch(tiny_data: Path, tiny_run: Path) -> None:
    scorer = TorchScorer(load_run(tiny_run).model)
    paths = [image.path for image in read(tiny_data).require_test()]
    together = [one.score for one in scorer.score(paths)]
    alone = [next(iter(scorer.score([path]))).score for path in paths]
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give one of --run, --url or --repository"),
        (["--url", "127.0.0.1:1", "--noise-seed", "1"], 2, "go with --run"),
        (["--run", "nowhere"], 1, "nowhere: not a finished run"),
    ],
)
def test_wrong_input_is_one_clear_line(
    arguments: list[str], code: int, message: str, tiny_data: Path
) -> None:
    result = CliRunner().invoke(main, ["evaluate", str(tiny_data), *arguments])
    assert result.exit_code == code
    assert message in result.output


def test_data_without_a_test_folder_is_named(tiny_run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path), "--run", str(tiny_run)])
    assert result.exit_code == 1
    assert "make a folder `test` with one folder a class" in result.output
