"""`diffusionad release compare`, as a command with a real Triton below it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.cli import main


def compare(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["release", "compare", *map(str, arguments)])


@pytest.mark.server
def test_two_releases_are_compared_on_a_server_of_the_commands_own(
    make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path
) -> None:
    limits = Thresholds(accept=0.22, reject=0.24)
    for name, gain in (("widget", 0.5), ("widget-candidate", 0.6)):
        model = handmade_model(gain=gain)
        bundle = make_bundle(category=name, model=model, thresholds=limits)
        publish_ungated(bundle, tmp_path / "repository")
    for number, pixels in enumerate(handmade_model().images(4)):
        folder = tmp_path / "test" / ("good" if number % 2 else "scratch")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "test" / "good" / "torn.png").write_bytes(b"no image")

    result = compare(
        *("widget", "widget-candidate", tmp_path / "test"),
        *("--repository", tmp_path / "repository", "--output", tmp_path / "compared"),
    )

    assert result.exit_code == 3, result.output  # one image could not be scored
    assert "4 of 4 verdicts differ (100.0 %)" in result.stdout
    assert "OK -> NG: 4" in result.stdout
    read = json.loads((tmp_path / "compared" / "compare.json").read_text())
    assert [failure["image"] for failure in read["failures"]] == ["good/torn.png"]
    assert {group["folder"] for group in read["classes"]} == {"good", "scratch"}
    for change in read["changes"]:
        ratio = change["candidate"]["score"] / change["base"]["score"]
        assert ratio == pytest.approx(0.6 / 0.5, rel=1e-4)
    assert (tmp_path / "compared" / "compare.html").stat().st_size > 10_000


def test_a_comparison_needs_one_server(tmp_path: Path) -> None:
    arguments = ("widget", "widget-candidate", tmp_path, "--output", tmp_path / "compared")
    for servers in ((), ("--url", "a:1", "--repository", tmp_path)):
        result = compare(*arguments, *servers)
        assert result.exit_code == 2
        assert re.search("give (either )?--url or --repository", result.stderr)
