"""`evaluate` on a run: the figures, the JSON and wrong input."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from diffusionad_client.cli import main
from diffusionad_training.checkpoint import load_run
from diffusionad_training.data.layout import read
from diffusionad_training.evaluation import evaluate, read_metrics
from diffusionad_training.scorers import Scored, TorchScorer


class MaskScorer:
    """Knows the answers: the map is the ground truth itself."""

    size = 80

    def score(self, paths):
        for path in paths:
            mask = path.parents[2] / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
            found = np.zeros((80, 80), np.float32)
            if mask.exists():
                from PIL import Image

                found = np.asarray(Image.open(mask)).astype(np.float32) / 255
            yield Scored(float(found.max()), found)


def test_a_detector_that_knows_the_answers_is_perfect(tiny_data: Path) -> None:
    result = evaluate(MaskScorer(), tiny_data, read(tiny_data).require_test(), detector="oracle")
    assert list(result.metrics.values()) == pytest.approx([1.0] * 6)
    assert result.auroc_by_defect == {"spot": pytest.approx(1.0)}
    assert len(result.images) == 6


def test_one_class_alone_is_undefined_not_zero(tiny_data: Path) -> None:
    good = [image for image in read(tiny_data).require_test() if not image.is_defective]
    result = evaluate(MaskScorer(), tiny_data, good, detector="oracle")
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
    detector, figures = read_metrics(output)
    assert detector == load_run(tiny_run).weights_digest
    assert all(value is None or 0 <= value <= 1 for value in figures.values())
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


def test_another_noise_constant_gives_other_scores(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    scores = []
    for seed in ("3", "4"):  # the run was trained, and its constant drawn, with seed 3
        output = tmp_path / f"{seed}.json"
        arguments = ["--run", str(tiny_run), "--noise-seed", seed, "--output", str(output)]
        result = CliRunner().invoke(main, ["evaluate", str(tiny_data), *arguments])
        assert result.exit_code == 0, result.output
        scores.append([image["score"] for image in json.loads(output.read_text())["images"]])
    own = [
        one.score
        for one in TorchScorer(load_run(tiny_run).model).score(
            [image.path for image in read(tiny_data).require_test()]
        )
    ]
    np.testing.assert_allclose(scores[0], own, atol=1e-6)
    assert scores[1] != scores[0]


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
