"""The whole way: demo-data, train, export, release add, score; torch and Triton agree."""

import csv
import io
import json
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from watched import WatchedHere

from diffusionad_client import Client, ImageError, ModelNotFoundError, ServerUnavailableError
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_client.scoring.results import read_rows
from diffusionad_client.watching.placing import Way
from diffusionad_client.watching.sorter import Sorting
from diffusionad_tools.release.candidate import published
from diffusionad_training.evaluation.scorers import TorchScorer
from diffusionad_training.run.checkpoint import load_run

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def scored(diffusionad, data: Path, repository: Path, tmp_path_factory) -> Path:
    """A folder with three bad files among the good ones, scored with a server of its own."""
    sources = tmp_path_factory.mktemp("line")
    for index, path in enumerate(sorted((data / "test").rglob("*.png"))):
        (sources / f"{index:03d}.png").write_bytes(path.read_bytes())
    (sources / "empty.png").touch()
    (sources / "text.png").write_text("this is not a picture")
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        buffer, "JPEG"
    )
    (sources / "truncated.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    output = tmp_path_factory.mktemp("scored") / "results"
    result = diffusionad(
        *("score", sources, "--repository", repository, "--model", "screw", "--output", output),
        code=3,
    )
    for name in ("empty.png", "text.png", "truncated.jpg"):
        assert name in result.stderr
    return output


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_every_good_file_is_scored_and_every_bad_one_named(scored: Path) -> None:
    by_name = {row["image"]: row for row in rows(scored)}
    assert len(by_name) == 9 + 3
    failed = {name for name, row in by_name.items() if row.get("error")}
    assert failed == {"empty.png", "text.png", "truncated.jpg"}
    assert all(0 <= by_name[name]["score"] <= 1 for name in set(by_name) - failed)


def test_the_table_says_what_the_lines_say(scored: Path) -> None:
    with (scored / "results.csv").open(newline="", encoding="utf-8-sig") as file:
        table = list(csv.DictReader(file))
    assert [row["image"] for row in table] == [row["image"] for row in rows(scored)]


def test_heat_maps_are_pictures(scored: Path) -> None:
    drawn = sorted((scored / "heatmaps").rglob("*.png"))
    assert len(drawn) == 9
    with Image.open(drawn[0]) as picture:
        assert picture.size[0] >= 64


def test_the_report_shows_pictures_that_are_there(scored: Path) -> None:
    page = (scored / "report.html").read_text()
    (run,) = re.findall(r'<script type="application/json" id="run">(.*?)</script>', page)
    places = json.loads(run)["pictures"]
    assert (scored / places["image"] / "000.png").is_file()
    assert 'src="http' not in page
    assert "truncated.jpg" in page


def test_nothing_unfinished_is_left(scored: Path) -> None:
    assert not list(scored.rglob("*.part"))


def test_triton_gives_torch_s_figures(
    diffusionad, data: Path, run_folder: Path, url: str, tmp_path: Path
) -> None:
    diffusionad("evaluate", data, "--run", run_folder, "--output", tmp_path / "torch.json")
    diffusionad("evaluate", data, "--url", url, "--output", tmp_path / "triton.json")
    torch, triton = (
        json.loads((tmp_path / name).read_text()) for name in ("torch.json", "triton.json")
    )
    for name in ("image_auroc", "pixel_auroc", "pro", "pixel_average_precision"):
        assert triton[name] == pytest.approx(torch[name], abs=1e-3)
    for here, there in zip(torch["images"], triton["images"], strict=True):
        assert there["path"] == here["path"]
        assert there["score"] == pytest.approx(here["score"], abs=1e-4)


def test_what_comes_into_a_watched_folder_gets_the_records_that_score_gives(
    diffusionad, url: str, data: Path, tmp_path: Path
) -> None:
    watch = WatchedHere(tmp_path, url, sorting=Sorting(Way.LINK, tmp_path / "sorted"))
    parts = sorted((data / "test").rglob("*.png"))
    names = [part.relative_to(data / "test").as_posix() for part in parts]
    for name in names:
        (watch.folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(data / "test" / name, watch.folder / name)
    watch.wait_for_images(*names)
    assert watch.stop().failed == 0
    other = ("--output", tmp_path / "scored", "--heatmaps", "none", "--no-report")
    diffusionad("score", watch.folder, "--url", url, *other)
    watched, scored = (
        {row.image: row for row in read_rows(folder)}
        for folder in (watch.output, tmp_path / "scored")
    )
    assert watched.keys() == scored.keys()
    for image, row in watched.items():
        other = scored[image]
        assert row.score == pytest.approx(other.score, abs=1e-6)  # batches move the last digits
        for fact in ("verdict", "sha256", "release", "settings"):
            assert getattr(row, fact) == getattr(other, fact)
        assert (tmp_path / "sorted" / row.verdict / image).samefile(watch.folder / image)


def test_one_image_in_any_form_has_one_score(url: str, data: Path, run_folder: Path) -> None:
    path = next((data / "test" / "good").glob("*.png"))
    with Client(url) as client, Image.open(path) as picture:
        forms = [path, str(path), path.read_bytes(), picture, np.asarray(picture.convert("RGB"))]
        inspections = [client.inspect(form) for form in forms]
    assert len({one.score for one in inspections}) == 1
    first = inspections[0]
    assert first.model == "screw"
    assert first.anomaly_map.shape == (64, 64)
    assert first.anomaly_map.dtype == np.float32
    assert first.reconstruction.shape == (64, 64, 3)
    assert first.verdict is first.thresholds.verdict(first.score)
    # Not the mean of this map's highest pixels: `edge` smooths it after the score was taken.
    (expected,) = TorchScorer(load_run(run_folder).model).score([path])
    assert first.score == pytest.approx(expected.score, abs=1e-5)
    np.testing.assert_allclose(first.anomaly_map, expected.anomaly_map, atol=1e-5)


def test_the_same_image_gets_the_same_score_every_time(url: str, data: Path) -> None:
    path = next((data / "test" / "dent").glob("*.png"))
    with Client(url) as client:
        assert len({client.inspect(path).score for _ in range(5)}) == 1


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((64, 64, 2), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((0, 64, 3), np.uint8),
    ],
    ids=["two channels", "float", "empty"],
)
def test_an_array_of_another_form_is_refused_by_name(url: str, array: np.ndarray) -> None:
    with Client(url) as client, pytest.raises(ImageError, match=r"\(H, W, 3\) uint8, not \("):
        client.inspect(array)


def test_an_unknown_model_is_named_with_those_there_are(
    diffusionad, url: str, data: Path, tmp_path: Path
) -> None:
    with Client(url) as client, pytest.raises(ModelNotFoundError, match="'bolt'.*screw"):
        client.inspect(np.zeros((64, 64, 3), np.uint8), model="bolt")
    result = diffusionad(
        "score", data / "test", "--url", url, "--model", "bolt", "--output", tmp_path, code=1
    )
    assert "'bolt'" in result.stderr
    assert "screw" in result.stderr


def test_a_server_that_is_down_is_one_clear_line(diffusionad, data: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{free.getsockname()[1]}"
        with Client(nowhere, timeout=3) as client, pytest.raises(ServerUnavailableError):
            client.inspect(np.zeros((64, 64, 3), np.uint8), model="screw")
        result = diffusionad(
            *("score", data / "test", "--url", nowhere, "--model", "screw"),
            *("--output", tmp_path / "results"),
            code=1,
        )
    assert nowhere in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_a_missing_folder_is_one_clear_line(diffusionad, url: str, tmp_path: Path) -> None:
    result = diffusionad(
        "score", tmp_path / "nowhere", "--url", url, "--output", tmp_path / "results", code=1
    )
    assert "nowhere" in result.stderr


def test_the_release_in_the_repository_is_the_bundle_s(url: str, bundle: Path) -> None:
    expected = ReleaseMetadata.from_json((bundle / "metadata.json").read_text())
    with Client(url) as client:
        assert client.served().metadata.as_exported() == published(expected).as_exported()


def test_release_list_shows_what_was_added(diffusionad, repository: Path, bundle: Path) -> None:
    listed = diffusionad("release", "list", "--repository", repository, "--json").stdout
    expected = ReleaseMetadata.from_json((bundle / "metadata.json").read_text())
    assert expected.release in listed
