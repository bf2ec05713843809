"""The table of rates asked for and seen, from distributions and from evaluations."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from diffusionad_training.benchmarks import thresholds
from diffusionad_training.errors import DataError


def evaluation(path: Path, scores: np.ndarray) -> Path:
    images = [{"path": f"{n}.png", "defect": "good", "score": s} for n, s in enumerate(scores)]
    images.append({"path": "bad.png", "defect": "hole", "score": 0.9})
    path.write_text(json.dumps({"images": images}))
    return path


@pytest.mark.parametrize("shape", ["normal", "exponential"])
def test_what_is_served_keeps_the_rate_that_the_quantile_exceeds(shape: str) -> None:
    draw, rng = thresholds.SHAPES[shape], np.random.default_rng(0)
    seen = thresholds.rates_drawn(draw, 30, 0.01, 150, rng)
    assert seen["quantile"].mean() > 0.02
    assert 0.003 < seen["served"].mean() < 0.015
    assert abs(seen["served"].mean() - 0.01) < abs(seen["quantile"].mean() - 0.01)


def test_an_evaluation_s_good_images_set_the_threshold_and_show_the_rate(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).beta(2, 20, size=60)
    path = evaluation(tmp_path / "part.json", scores)
    result = CliRunner().invoke(thresholds.main, [str(path), "--repeats", "5"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].split() == ["scores", "asked", "images", "quantile", "served"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["part", rate, count] for rate in ("1%", "5%") for count in ("10", "20", "30")
    ]


def test_an_evaluation_with_too_few_good_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="12 good test images; .*20 are needed"):
        thresholds.read_good_scores(evaluation(tmp_path / "few.json", np.full(12, 0.1)))
    with pytest.raises(DataError, match="not an evaluation"):
        thresholds.read_good_scores(tmp_path / "none.json")
