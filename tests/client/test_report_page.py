"""The report as its reader meets it in a real Chromium; skipped, saying so, where there is none."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.pages import pictures
from diffusionad_client.report.page import write_report
from diffusionad_client.report.pdf import BROWSERS, print_page
from diffusionad_client.scoring.results import RunSummary
from diffusionad_client.scoring.row import Row

CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no browser: none of {', '.join(BROWSERS)} is in PATH"
)
THRESHOLDS = Thresholds(0.3, 0.6)
HOSTILE = (
    "<img src=x onerror=document.title='hit'>.png",
    "</script><script>document.title='hit'</script>.png",
    "javascript:document.title='hit'.png",
    "a&amp;\"'b #?%41.png",
    "caf\udce9 ümlaut 部品.png",
)


def row(name: str, score: float, **others: Any) -> Row:
    return Row(
        image=name,
        score=score,
        verdict=THRESHOLDS.verdict(score).value,
        accept=THRESHOLDS.accept,
        reject=THRESHOLDS.reject,
        model="screw",
        version="1",
        release="ab" * 32,
        decode_s=0.01,
        resize_s=0.001,
        request_s=0.0123,
        **others,
    )


def write_results(output: Path, rows: Iterable[Row]) -> Path:
    output.mkdir(parents=True, exist_ok=True)
    rows = list(rows)
    failed = sum(row.verdict is None for row in rows)
    lines = (json.dumps(row.to_document()) for row in rows)
    (output / "results.jsonl").write_text("\n".join(lines))
    summary = RunSummary(
        model="screw",
        server="line1:8001",
        root=str(output.parent / "parts"),
        started="2026-11-28T08:00:00+01:00",
        seconds=10.0,
        images=len(rows),
        failed=failed,
        verdicts={},
    )
    (output / "run.json").write_text(json.dumps(asdict(summary)))
    return output


def draw(output: Path, name: str) -> dict[str, str]:
    """Write an image with its pictures; gives the row's fields that name them."""
    image = np.full((60, 80, 3), (200, 90, 90), np.uint8)
    heat = pictures.heat_map(image, np.eye(8, dtype=np.float32), 0.5)
    names = {"heatmap": f"heatmaps/{name}.png", "reconstruction": f"reconstructions/{name}.jpg"}
    made = {
        output.parent / "parts" / name: pictures.png(Image.fromarray(image)),
        output / names["heatmap"]: pictures.png(heat),
        output / names["reconstruction"]: pictures.jpeg(Image.fromarray(image)),
    }
    for path, content in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return names


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sandbox = [] if not hasattr(os, "geteuid") or os.geteuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 images of two folders with scores 0 to 0.995, of which the first 30 have pictures."""
    output = tmp_path_factory.mktemp("run") / "out"
    rows = []
    for number in range(200):
        score = (number * 37 % 200) / 200
        name = f"{'good' if score < 0.5 else 'dent'}/{number}.png"
        others: dict[str, Any] = draw(output, name) if number < 30 else {}
        rows.append(
            row(
                name,
                score,
                scored_at=f"2026-11-28T{8 + number // 60:02}:{number % 60:02}:00Z",
                fields={"line": "7", "score": f"<b>lot {number // 50}"},
                area_percent=100 * score,
                **others,
            )
        )
    write_results(output, [*rows, Row.failed("broken.png", ValueError("not an image"))])
    earlier = write_results(output.parent / "earlier", rows[50:150])
    return write_report(output, baseline=earlier)


@pytest.fixture(scope="module")
def window(browser: Browser) -> Page:
    return browser.new_page(viewport={"width": 1300, "height": 900})


@pytest.fixture
def page(window: Page, report: Path) -> Page:
    """The report, opened anew in the one window."""
    return opened(window, report)


def opened(page: Page, report: Path) -> Page:
    """Open a report; whatever its script raises then fails the test."""
    raised: list[str] = []
    page.once("pageerror", lambda error: raised.append(str(error)))
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    assert raised == []
    return page


def until_loaded(page: Page, selector: str, pictures: int) -> None:
    """Wait until so many pictures are there; Playwright's own wait breaks the page's rule."""
    script = "all => all.filter(picture => picture.naturalWidth > 0).length"
    deadline = time.monotonic() + 30
    while (loaded := page.locator(selector).evaluate_all(script)) < pictures:
        assert time.monotonic() < deadline, f"{loaded} of {pictures} pictures"
        page.wait_for_timeout(50)


def count(page: Page, verdict: str) -> int:
    return int(page.locator(f"#count-{verdict} b").inner_text().replace(",", ""))


def counts(page: Page) -> tuple[int, int, int]:
    return count(page, "OK"), count(page, "REVIEW"), count(page, "NG")


def first_row(page: Page) -> list[str]:
    return page.locator("#rows-body .row").first.locator("> div").all_inner_texts()


def test_it_opens_with_the_run_s_own_verdicts(page: Page) -> None:
    assert counts(page) == (60, 60, 80)
    assert page.locator("#failures").inner_text().count("not an image") == 1
    assert first_row(page)[-4:-2] == ["NG", "0.9950"]
    assert page.locator("#use").is_hidden()


def test_a_dragged_threshold_recounts_everything(page: Page) -> None:
    handle = page.locator("[data-name=reject] .grip")
    box = handle.bounding_box()
    assert box is not None
    chart = page.locator("#histogram svg .axis").last.bounding_box()  # from 0 to the axis' end, 1
    assert chart is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(chart["x"] + 0.8 * chart["width"], box["y"], steps=4)
    page.mouse.up()
    expect(page.locator("#count-NG .change")).to_contain_text("−")
    reject = float(page.locator("#reject").input_value())
    assert reject == pytest.approx(0.8, abs=0.02)
    ng = sum(number / 200 >= reject for number in range(200))
    assert counts(page) == (60, 140 - ng, ng)
    expect(page.locator("[data-verdict=NG]")).to_have_text(f"NG {ng}")
    page.locator("[data-verdict=REVIEW]").click()
    expect(page.locator("#rows")).to_have_attribute("aria-rowcount", f"{140 - ng + 1}")
    expect(page.locator("#page")).to_contain_text(f"of {140 - ng}")
    assert set(page.locator("#grid .badge").all_inner_texts()) == {"REVIEW"}
    good = page.locator("#groups-body tr", has_text="good").inner_text()
    assert "0 rejected" in good
    assert f"--reject {reject:g}" in page.locator("#use").inner_text()
    page.locator("#reset").click()
    expect(page.locator("#count-NG b")).to_have_text("80")
    assert counts(page) == (60, 60, 80)


def test_a_threshold_moves_by_arrow_keys_and_by_its_number_and_never_past_the_other(
    page: Page,
) -> None:
    page.locator("[data-name=accept]").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#accept")).to_have_value("0.302")
    page.keyboard.press("Shift+ArrowLeft")
    expect(page.locator("#accept")).to_have_value("0.282")
    page.locator("#accept").fill("0.9")
    page.locator("#accept").press("Enter")
    expect(page.locator("#accept")).to_have_value("0.6")
    expect(page.locator("#count-REVIEW b")).to_have_text("0")
    assert counts(page) == (120, 0, 80)


def test_it_tells_live_how_many_good_and_defective_parts_are_judged_wrongly(page: Page) -> None:
    mistakes = page.locator("#mistakes")
    expect(mistakes).to_contain_text("Good parts that are NG: 0.0 % (0 of 100)")
    page.locator("#accept").fill("0.1")
    page.locator("#accept").press("Enter")
    page.locator("#reject").fill("0.4")
    page.locator("#reject").press("Enter")
    expect(mistakes).to_contain_text("Good parts that are NG: 20.0 % (20 of 100)")
    expect(mistakes).to_contain_text("in review: 60.0 % (60 of 100)")


def test_logarithmic_counts_raise_the_low_bars_and_keep_all_inside_the_drawing(page: Page) -> None:
    tallest = "bars => Math.max(...bars.map(bar => +bar.getAttribute('height')))"
    before = page.locator("#histogram .bar").evaluate_all(tallest)
    page.locator("#log").check()
    assert before < page.locator("#histogram .bar").evaluate_all(tallest) <= 210
    assert page.locator("#histogram text").first.text_content() == "1"


def test_the_table_sorts_by_a_column_both_ways(page: Page) -> None:
    name = page.locator("#rows-head button", has_text="image")
    name.click()
    expect(page.locator("#rows-head [aria-sort=ascending]")).to_contain_text("image")
    names = [row.split("\n")[1] for row in page.locator("#rows-body .row").all_inner_texts()]
    assert names == sorted(names, key=lambda name: (name.split("/")[0], int(name[5:-4])))
    name.click()
    expect(page.locator("#rows-body .row").first).to_contain_text("good/")
    assert page.locator("#rows-head [aria-sort=descending]").inner_text().startswith("image")


def test_filters_of_name_verdict_and_field_narrow_table_and_gallery(page: Page) -> None:
    page.locator("#find").fill("/19")
    expect(page.locator("#rows")).to_have_attribute("aria-rowcount", "12")  # 19, 190 to 199
    page.locator("#find").fill("")
    page.locator("[data-field=folder]").select_option("good")
    expect(page.locator("#count-NG b")).to_have_text("0")
    assert counts(page) == (60, 40, 0)
    page.locator("[data-verdict=OK]").click()
    expect(page.locator("#page")).to_have_text("1–24 of 60")
    page.locator("#page-on").click()
    expect(page.locator("#page")).to_have_text("25–48 of 60")
    assert page.locator("#grid .card").count() == 24


def test_a_field_of_the_user_groups_sorts_and_narrows_whatever_its_name(page: Page) -> None:
    page.locator("#group-by").select_option(label="score")
    group = page.locator("#groups-body button", has_text="<b>lot 2")
    group.click()
    expect(page.locator("#scope-text")).to_contain_text("50 of 200 images: score <b>lot 2")
    assert sum(counts(page)) == 50
    page.locator("#scope-clear").click()
    expect(page.locator("#rows")).to_have_attribute("aria-rowcount", "201")
    page.locator("#rows-head button", has_text="score").first.click()
    expect(page.locator("#rows-body .row").first).to_contain_text("<b>lot 0")
    assert "line 7" in page.locator("header").first.inner_text()


def test_the_course_goes_along_the_order_or_along_time(page: Page) -> None:
    labels = page.locator("#course text")
    expect(labels.last).to_have_text("200")
    page.locator("#course-by").select_option("time")
    expect(labels.last).to_contain_text(":19:00")


def test_the_baseline_is_a_line_behind_the_histogram_and_drift_a_sentence(page: Page) -> None:
    box = page.locator("#histogram .baseline").bounding_box()
    assert box is not None
    assert box["height"] > 50
    assert (
        "Too little is known: among 100 good parts" in page.locator("#drift .verdict").inner_text()
    )
    assert page.locator("#drift svg.index .bar").count() > 0


def test_the_slider_uncovers_one_picture_under_the_other(page: Page) -> None:
    page.locator("#find").fill("/7.png")
    expect(page.locator("#page")).to_have_text("1–1 of 1")
    page.locator("#grid .card").first.click()
    expect(page.locator("#viewer")).to_be_visible()
    expect(page.locator("#stage img")).to_have_count(2)
    until_loaded(page, "#stage img", 2)
    over = page.locator("#stage .over")
    assert over.evaluate("e => getComputedStyle(e).clipPath") == "inset(0px 0px 0px 50%)"
    page.locator("#slider").focus()
    page.keyboard.press("End")
    assert over.evaluate("e => getComputedStyle(e).clipPath") == "inset(0px 0px 0px 100%)"
    stage = page.locator("#stage > .frame").bounding_box()
    assert stage is not None
    page.mouse.click(stage["x"] + stage["width"] / 4, stage["y"] + 20)
    assert page.locator("#slider").input_value() == "25"
    # the image is 80 x 60, and so is the heat map without its scale
    assert stage["width"] / stage["height"] == pytest.approx(80 / 60, rel=0.01)
    page.locator("#compare button", has_text="image | reconstruction").click()
    assert page.locator("#stage img").last.get_attribute("alt") == "reconstruction"
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()


def test_the_table_is_walked_and_opened_by_keyboard(page: Page) -> None:
    page.locator("#rows-body .row").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    assert page.locator("#rows-body .row:focus > div").nth(-3).inner_text() == "0.0000"
    page.keyboard.press("Enter")
    expect(page.locator("#viewer-at")).to_have_text("200 of 200")
    page.locator("#viewer-close").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#viewer-at")).to_have_text("199 of 200")


def test_pictures_that_were_not_made_or_are_gone_are_said_to_be(page: Page) -> None:
    page.locator("#find").fill("/199.png")
    card = page.locator("#grid .card").first
    expect(card).to_contain_text("no heat map was made")
    card.scroll_into_view_if_needed()
    expect(card).to_contain_text("the image is no longer there")


def test_an_embedded_page_shows_its_pictures_without_the_folder_it_came_from(
    window: Page, report: Path, tmp_path: Path
) -> None:
    shutil.copytree(report.parent, tmp_path / "results")
    made = write_report(tmp_path / "results", image_root=report.parents[1] / "parts", embed=True)
    (tmp_path / "elsewhere").mkdir()
    page = opened(window, made.rename(tmp_path / "elsewhere" / "report.html"))
    page.locator("#find").fill("/27.png")
    expect(page.locator("#page")).to_have_text("1–1 of 1")
    page.locator("#grid .card").scroll_into_view_if_needed()
    until_loaded(page, "#grid img", 3)


def test_where_the_image_is_gone_the_viewer_shows_what_was_made_of_it(
    window: Page, report: Path, tmp_path: Path
) -> None:
    shutil.copytree(report.parent, tmp_path / "results")
    page = opened(window, write_report(tmp_path / "results", image_root=tmp_path / "nowhere"))
    page.locator("#find").fill("/7.png")
    expect(page.locator("#page")).to_have_text("1–1 of 1")
    page.locator("#grid .card").click()
    expect(page.locator("#stage")).to_contain_text("the image is no longer there")
    until_loaded(page, "#stage > .frame img", 1)
    expect(page.locator("#slider")).to_be_hidden()


def test_hostile_names_are_texts_and_their_pictures_are_found(window: Page, tmp_path: Path) -> None:
    output = tmp_path / "out"
    names = [name for name in HOSTILE if "/" not in name]
    rows = [row(name, 0.9, **draw(output, name)) for name in names]
    rows += [row(name, 0.2) for name in HOSTILE if "/" in name]
    rows.append(Row.failed(HOSTILE[1], ValueError(HOSTILE[0])))
    write_results(output, rows)
    page = opened(window, write_report(output))
    page.locator("#grid .card img").last.scroll_into_view_if_needed()
    until_loaded(page, "#grid img", 3 * 4)
    assert page.title() == "screw · inspection report"
    assert page.locator("main script, #grid [onerror], #rows [onerror]").count() == 0
    assert HOSTILE[0] in page.locator("#rows-body").inner_text()


def test_nothing_comes_from_a_network(window: Page, report: Path) -> None:
    asked: list[str] = []
    window.on("request", lambda request: asked.append(request.url))
    opened(window, report)
    assert asked
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}


def test_it_is_printed_to_a_pdf_with_its_pictures(report: Path, tmp_path: Path) -> None:
    pdf = tmp_path / "report.pdf"
    print_page(report, pdf)
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF-")
    assert content.count(b"/Subtype /Image") > 0
    assert list(tmp_path.iterdir()) == [pdf]


@pytest.mark.long
def test_ten_thousand_images_open_in_under_three_seconds_and_stay_quick(
    browser: Browser, tmp_path: Path
) -> None:
    scores = np.random.default_rng(0).beta(2, 8, 10_000)
    rows = (
        row(f"lot {n % 40:02}/{n:06}.png", float(score), heatmap=f"heatmaps/{n}.png")
        for n, score in enumerate(scores)
    )
    report = write_report(write_results(tmp_path / "out", rows))
    page = browser.new_page()
    cdp = page.context.new_cdp_session(page)
    cdp.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent(what: str) -> float:
        """Seconds of a core that the page took: how busy others keep the machine is not counted."""
        metrics = cdp.send("Performance.getMetrics")["metrics"]
        return next(float(one["value"]) for one in metrics if one["name"] == what)

    before = spent("ProcessTime")
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    assert spent("ProcessTime") - before < 3
    page.locator("[data-name=reject]").focus()
    before = spent("TaskDuration")
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
        page.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
    assert (spent("TaskDuration") - before) / 20 < 0.15  # from a key to the counts that follow
    page.close()
