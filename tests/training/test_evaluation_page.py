"""The page of `evaluate`: what it holds, what it must not say, and what it costs in memory."""

import base64
import io
import json
import re
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusionad_client.cli import main
from diffusionad_client.errors import OutputError
from diffusionad_client.files import PART
from diffusionad_client.pages.histogram import stack_up
from diffusionad_client.pages.rendering import THUMBNAIL
from diffusionad_training.data.layout import GOOD, Sample, read
from diffusionad_training.evaluation import charts
from diffusionad_training.evaluation.drawing import draw
from diffusionad_training.evaluation.examples import OF_EACH_KIND, Example, Examples
from diffusionad_training.evaluation.measure import Measured, measure
from diffusionad_training.evaluation.metrics import Curve
from diffusionad_training.evaluation.page import Subject, write_page
from diffusionad_training.evaluation.scorers import Scored

SIZE = 64


class BrightnessScorer:
    """Takes what is bright for a defect."""

    size = SIZE

    def __init__(self, *, reconstruction: bool = True) -> None:
        self._reconstruction = reconstruction
        self._given: list[weakref.ref[np.ndarray]] = []
        self.most_alive = 0  # maps that someone held at the same time

    def score(self, paths: Sequence[Path]) -> Iterator[Scored]:
        for path in paths:
            image = np.asarray(Image.open(path).convert("RGB").resize((SIZE, SIZE)))
            found = image.max(axis=-1).astype(np.float32) / 255
            self._given.append(weakref.ref(found))
            self.most_alive = max(self.most_alive, sum(one() is not None for one in self._given))
            yield Scored(float(found.mean()), found, image if self._reconstruction else None)


def measured(data: Path, *, good_only: bool = False, reconstruction: bool = True) -> Measured:
    images = [i for i in read(data).require_test() if not (good_only and i.is_defective)]
    scorer = BrightnessScorer(reconstruction=reconstruction)
    return measure(scorer, data, images, detector="oracle")


def page_of(data: Path, path: Path, results: dict[str, Measured]) -> str:
    write_page(path, Subject("run plates", data, None, None), results)
    return path.read_text()


@pytest.fixture(scope="module")
def page(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pages") / "page.html"
    return page_of(tiny_data, path, {"norm-guided": measured(tiny_data)})


def cells(page: str, first: str) -> list[str]:
    """Give the cells of the table row that starts with `first`."""
    (row,) = re.findall(f"<tr><td>{first}</td>.*?</tr>", page)
    return [re.sub("<.*?>", "", cell) for cell in re.findall("<td>(.*?)</td>", row)]


def test_the_page_tells_what_was_measured_and_how_well(page: str, tiny_data: Path) -> None:
    evaluation = measured(tiny_data).evaluation
    assert "<h1>plates</h1>" in page
    assert "run plates" in page
    assert "6 images, 3 of them good" in page
    figures = [f"{100 * value:.1f}" for value in evaluation.metrics.values() if value is not None]
    assert cells(page, "norm-guided")[1:7] == figures
    spot = evaluation.by_class["spot"]
    expected = (
        spot.image_auroc,
        spot.image_average_precision,
        spot.pixel_auroc,
        spot.pixel_average_precision,
        spot.pro,
    )
    assert cells(page, "spot") == [
        "spot",
        "3",
        *(f"{100 * (value or 0):.1f}" for value in expected),
    ]


def test_the_page_holds_its_pictures_and_asks_for_nothing_else(page: str) -> None:
    assert page.count("<polyline") == 3
    assert page.count('src="data:image/jpeg;base64,') == 6 * 3
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', page) == []
    assert "http" not in page


def test_every_image_is_shown_once_with_its_class_and_score(page: str, tiny_data: Path) -> None:
    for row in measured(tiny_data).evaluation.images:
        assert page.count(f"<bdi>{row.path}</bdi>") == 1
        assert f'<span class="score">{row.score:.4f}</span>' in page
    headings = re.findall('<h2 class="gallery">(.*?) <span', page)
    assert headings == [
        *("Lowest-scored defective", "Highest-scored good", "Highest-scored defective")
    ]


def test_without_reconstructions_the_page_shows_two_pictures_an_image(
    tiny_data: Path, tmp_path: Path
) -> None:
    results = {"norm-guided": measured(tiny_data, reconstruction=False)}
    page = page_of(tiny_data, tmp_path / "page.html", results)
    assert page.count('src="data:image/jpeg;base64,') == 6 * 2
    assert ">reconstruction<" not in page


def test_figures_of_one_class_are_undefined_on_the_page_too(
    tiny_data: Path, tmp_path: Path
) -> None:
    results = {"norm-guided": measured(tiny_data, good_only=True)}
    page = page_of(tiny_data, tmp_path / "page.html", results)
    assert cells(page, "norm-guided")[1:7] == ["undefined"] * 6
    assert page.count("The data do not define this curve.") == 3
    assert "Lowest-scored defective" not in page


def test_a_class_without_masks_has_no_pixel_figures(tiny_data: Path, tmp_path: Path) -> None:
    images = [
        Sample(image.path, image.split, image.defect) for image in read(tiny_data).require_test()
    ]
    result = measure(BrightnessScorer(), tiny_data, images, detector="oracle")
    page = page_of(tiny_data, tmp_path / "page.html", {"norm-guided": result})
    assert cells(page, "spot")[4:] == ["undefined"] * 3
    assert "not in the pixel metrics: 3." in page


def test_ways_to_denoise_have_a_section_each_below_one_table(
    tiny_data: Path, tmp_path: Path
) -> None:
    results = {way: measured(tiny_data) for way in ("large-step", "norm-guided")}
    page = page_of(tiny_data, tmp_path / "page.html", results)
    assert re.findall('<h2 class="way">(.*?)</h2>', page) == ["large-step", "norm-guided"]
    assert page.index("<td>norm-guided</td>") < page.index('<h2 class="way">')


def test_what_the_figures_do_not_say_is_on_the_page(tiny_data: Path, tmp_path: Path) -> None:
    subject = Subject("plates release 1", tiny_data, None, "it inspects a region only")
    write_page(tmp_path / "page.html", subject, {"norm-guided": measured(tiny_data)})
    assert "it inspects a region only." in (tmp_path / "page.html").read_text()


def test_names_of_folders_cannot_put_markup_into_the_page(tmp_path: Path) -> None:
    for folder in ("good", "<b>dent"):
        path = tmp_path / "<i>data" / "test" / folder / "<u>0.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (40, 30), "grey").save(path)
    data = tmp_path / "<i>data"
    page = page_of(data, tmp_path / "page.html", {"norm-guided": measured(data)})
    assert not re.search("<i>|<u>|<b>dent", page)
    assert "&lt;b&gt;dent" in page


def test_the_command_writes_a_page_without_any_path_of_this_machine(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    mask = tmp_path / "roi.png"
    Image.linear_gradient("L").point(lambda grey: 255 * (grey >= 64)).save(mask)
    report, output = tmp_path / "out" / "page.html", tmp_path / "evaluation.json"
    result = CliRunner().invoke(
        main,
        [
            *("evaluate", str(tiny_data), "--run", str(tiny_run), "--roi", str(mask)),
            *("--report", str(report), "--output", str(output)),
        ],
    )
    assert result.exit_code == 0, result.output
    page = report.read_text()
    for path in (tiny_data, tiny_run, tmp_path):
        assert str(path.parent) not in page
    document = json.loads(output.read_text())
    assert f"run plates, weights {document['detector'][:12]}" in page
    assert f"<code>{document['roi'][:12]}</code>, 75.0 % of the picture" in page
    assert cells(page, "spot")[:3] == ["spot", "3", "0"]
    assert [path.name for path in report.parent.iterdir()] == ["page.html"]


def test_a_page_that_cannot_be_written_leaves_the_earlier_one(
    tiny_data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    path.write_text("the earlier one")
    (tmp_path / f"page.html{PART}").mkdir()  # where it would be written aside
    with pytest.raises(OutputError, match=r"page\.html"):
        page_of(tiny_data, path, {"norm-guided": measured(tiny_data)})
    assert path.read_text() == "the earlier one"


def test_maps_are_let_go_but_for_the_few_that_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    Image.new("RGB", (SIZE, SIZE), "grey").save(path)
    samples = [Sample(path, "test", GOOD if n % 2 else "dent") for n in range(120)]
    scorer = BrightnessScorer()
    result = measure(scorer, tmp_path, samples, detector="oracle")
    assert scorer.most_alive <= 3  # those in hand; the examples are copies
    assert len(result.examples.missed) == len(result.examples.found) == OF_EACH_KIND
    assert len(result.examples.false_alarms) == OF_EACH_KIND


def shown(scores: Sequence[float], limit: int) -> Examples:
    examples = Examples(limit)
    batch = np.zeros((len(scores), 4, 4), np.float32)
    for number, score in enumerate(scores):
        sample = Sample(Path(f"{number}.png"), "test", "dent")
        examples.show(sample, Scored(score, batch[number]), None)
    return examples


@given(
    st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), max_size=20),
    st.integers(min_value=1, max_value=6),
)
def test_the_examples_are_the_lowest_and_the_highest_and_none_is_both(
    scores: list[float], limit: int
) -> None:
    examples = shown(scores, limit)
    missed, found = examples.missed, examples.found
    in_order = sorted(scores)
    assert [one.score for one in missed] == in_order[: len(missed)]
    assert [one.score for one in found] == in_order[::-1][: len(found)]
    assert len(missed) + len(found) == min(len(scores), 2 * limit)
    assert not {one.sample.path for one in missed} & {one.sample.path for one in found}


def test_an_example_does_not_hold_on_to_the_batch_that_its_map_came_from() -> None:
    (example,) = shown([0.5], 3).missed
    assert example.anomaly_map.base is None


def pixels(picture: str | None) -> np.ndarray:
    assert picture is not None
    encoded = picture.partition("base64,")[2]
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as opened:
        return np.asarray(opened).astype(int)


def test_a_defect_is_outlined_and_itself_still_seen(tmp_path: Path) -> None:
    Image.new("RGB", (THUMBNAIL, THUMBNAIL), (128, 128, 128)).save(tmp_path / "0.png")
    mask = np.zeros((THUMBNAIL, THUMBNAIL), bool)
    mask[100, 50:200] = True  # a scratch, one pixel wide
    sample = Sample(tmp_path / "0.png", "test", "dent")
    card = draw(Example(sample, 0.1, mask.astype(np.float32), None, mask), tmp_path, None, 0.5)
    image, mapped = pixels(card.image), pixels(card.anomaly_map)
    for picture in (image, mapped):
        assert picture[103, 120, 2] > picture[103, 120, 0] + 30  # cyan, three pixels away
        assert abs(picture[200] - 128).max() < 3
    assert abs(image[100, 120] - 128).max() < 30
    assert mapped[100, 120, 0] > mapped[100, 120, 2] + 30  # red


def test_what_lies_outside_the_region_of_interest_is_dark(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), (128, 128, 128)).save(tmp_path / "0.png")
    region = np.zeros((SIZE, SIZE), bool)
    region[:, : SIZE // 2] = True
    sample = Sample(tmp_path / "0.png", "test", GOOD)
    example = Example(sample, 0.1, np.zeros((SIZE, SIZE), np.float32), None, None)
    image = pixels(draw(example, tmp_path, region, 0.5).image)
    assert abs(image[:, : THUMBNAIL // 2 - 8] - 128).max() < 3
    assert image[:, THUMBNAIL // 2 + 8 :].max() < 60


def test_an_image_that_is_gone_since_is_said_to_be(tmp_path: Path) -> None:
    example = Example(
        Sample(tmp_path / "0.png", "test", GOOD), 0.1, np.zeros((8, 8), np.float32), None, None
    )
    card = draw(example, tmp_path, None, 0.5)
    assert card.image is None
    assert card.anomaly_map is not None


@given(st.integers(2, 3000), st.integers(0, 100))
def test_a_curve_is_drawn_from_end_to_end_with_few_points(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.random(count)), np.sort(rng.random(count))
    x[[0, -1]], y[[0, -1]] = [0, 1], [0, 1]
    points = charts.plot(Curve(x, y)).line.split()
    assert points[0] == f"0,{charts.HEIGHT}"
    assert points[-1] == f"{charts.WIDTH},0"
    assert len(points) <= 2 * (charts.WIDTH + charts.HEIGHT) + 1


def test_the_histogram_counts_every_image_of_either_kind() -> None:
    stack = stack_up({"good": [0.1, 0.1, 0.2], "defective": [0.2, 0.9]})
    counts = {"good": 0, "defective": 0}
    for bar in stack.bars:
        counts[bar.group] += int(bar.label.split()[0])
    assert counts == {"good": 3, "defective": 2}
    assert stack_up({"good": [], "defective": []}).bars == []
