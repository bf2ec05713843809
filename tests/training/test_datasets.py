"""Public data sets, in trees made after their published layouts: read, and found whole or not."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from diffusionad_client.cli import main
from diffusionad_training.data import layout, published
from diffusionad_training.data.completeness import check
from diffusionad_training.data.published import SETS, Counts, PublishedSet
from diffusionad_training.errors import DataError

PNG, JPEG = b"\x89PNG\r\n\x1a\n....IEND\xaeB`\x82", b"\xff\xd8....\xff\xd9"
SMALL: Mapping[str, Counts] = {  # as the real ones, of fewer images
    "MVTec AD": published._mvtec(3, 2, 4, 2),
    "MPDD": published._mvtec(3, 2, 4),
    "DAGM 2007": {"Train": 4, "Test": 4, "labels": 3, "labels of Test": None},
    "VisA": {"Normal": 5, "Anomaly": 2, "masks": 2, "rows of 1cls.csv": 7},
    "Magnetic Tile Defect": {"images": 3, "masks": 3},
}


def write(path: Path, content: bytes | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content or (PNG if path.suffix.lower() == ".png" else JPEG))


def mvtec(root: Path) -> None:
    for number in range(3):
        write(root / f"train/good/{number:03d}.png")
    for number in range(2):
        write(root / f"test/good/{number:03d}.png")
        for defect in ("hole", "scratches"):
            write(root / f"test/{defect}/{number:03d}.png")
            write(root / f"ground_truth/{defect}/{number:03d}_mask.png")
    write(root / "license.txt")


def dagm(root: Path) -> None:
    for number in range(1, 5):
        write(root / f"Train/{number:04d}.PNG")
        write(root / f"Test/{number + 4:04d}.PNG")
    for name in ("Train/Label/0002", "Test/Label/0005", "Test/Label/0007"):
        write(root / f"{name}_label.PNG")
    for half in ("Train", "Test"):
        write(root / half / "Label" / "Labels.txt")


def visa(root: Path) -> None:
    rows = []
    for number in range(5):
        write(root / f"Data/Images/Normal/{number:04d}.JPG")
        split = "train" if number < 3 else "test"
        rows.append(f"{root.name},{split},normal,{root.name}/Data/Images/Normal/{number:04d}.JPG,")
    for number in range(2):
        write(root / f"Data/Images/Anomaly/{number:03d}.JPG")
        write(root / f"Data/Masks/Anomaly/{number:03d}.png")
        rows.append(
            f"{root.name},test,anomaly,{root.name}/Data/Images/Anomaly/{number:03d}.JPG,"
            f"{root.name}/Data/Masks/Anomaly/{number:03d}.png"
        )
    write(root / "image_anno.csv", b"image,label,mask\n")
    table = root.parent / "split_csv/1cls.csv"
    before = table.read_text() if table.exists() else "object,split,label,image,mask\n"
    write(table, (before + "\n".join(rows) + "\n").encode())


def tile(root: Path) -> None:
    for number in range(3):
        write(root / f"Imgs/exp1_num_{number}.jpg")
        write(root / f"Imgs/exp1_num_{number}.png")


MAKERS = {"mvtec": mvtec, "dagm": dagm, "visa": visa, "tile": tile}
TITLES = [one.title for one in SETS]


@pytest.fixture
def small_sets(monkeypatch: pytest.MonkeyPatch) -> dict[str, PublishedSet]:
    """The published sets with the counts of trees that a test can afford."""
    small = {
        one.title: PublishedSet(
            one.title, one.source, one.form, dict.fromkeys(one.categories, SMALL[one.title])
        )
        for one in SETS
    }
    monkeypatch.setattr("diffusionad_training.data.completeness.SETS", tuple(small.values()))
    return small


def made(small: PublishedSet, root: Path) -> Path:
    for category in small.categories:
        MAKERS[small.form](root / category)
    return root


def checked(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["datasets", "check", *map(str, arguments)])


@pytest.mark.parametrize("title", TITLES)
def test_a_tree_after_the_published_layout_is_whole(
    title: str, small_sets: dict[str, PublishedSet], tmp_path: Path
) -> None:
    root = made(small_sets[title], tmp_path / "set")
    result = check(root)
    assert (result.published.title, result.missing) == (title, ())
    assert [one.faults for one in result.categories] == [()] * len(
        SETS[TITLES.index(title)].categories
    )
    assert checked(root).exit_code == 0


@pytest.mark.parametrize("title", TITLES)
def test_one_category_is_checked_by_itself(
    title: str, small_sets: dict[str, PublishedSet], tmp_path: Path
) -> None:
    root = made(small_sets[title], tmp_path / "set")
    name = next(iter(small_sets[title].categories))
    result = check(root / name)
    assert [one.category for one in result.categories] == [name]
    assert result.is_whole


@pytest.mark.parametrize("title", TITLES)
def test_a_category_that_is_missing_is_named_with_where_to_fetch_it(
    title: str, small_sets: dict[str, PublishedSet], tmp_path: Path
) -> None:
    root = made(small_sets[title], tmp_path / "set")
    name = list(small_sets[title].categories)[1]
    (root / name).rename(tmp_path / name)
    result = checked(root)
    assert result.exit_code == 1
    assert f"{name}: missing altogether" in result.output
    assert result.output.splitlines()[-1].endswith(
        f"{name}; fetch what is named above again from {small_sets[title].source}"
    )


@pytest.mark.parametrize(
    ("title", "lost", "fault"),
    [
        ("MVTec AD", "train/good/001.png", "2 train/good where 3 are published"),
        ("MVTec AD", "test/hole/000.png", "3 test, defective where 4 are published"),
        ("MPDD", "ground_truth/hole/001_mask.png", "3 masks where 4 are published"),
        ("DAGM 2007", "Test/Label/0007_label.PNG", "2 labels where 3 are published"),
        ("DAGM 2007", "Train/0004.PNG", "3 Train where 4 are published"),
        ("VisA", "Data/Images/Normal/0004.JPG", "4 Normal where 5 are published"),
        ("VisA", "Data/Masks/Anomaly/000.png", "1 masks where 2 are published"),
        ("Magnetic Tile Defect", "Imgs/exp1_num_2.png", "2 masks where 3 are published"),
    ],
)
def test_a_set_that_is_half_there_says_what_is_missing(
    title: str, lost: str, fault: str, small_sets: dict[str, PublishedSet], tmp_path: Path
) -> None:
    root = made(small_sets[title], tmp_path / "set")
    name = list(small_sets[title].categories)[2]
    (root / name / lost).unlink()
    result = checked(root)
    assert result.exit_code == 1
    assert f"{name}: {fault}" in result.output
    assert [one.category for one in check(root).categories if not one.is_whole] == [name]


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n....", b""])
def test_a_file_that_the_download_cut_short_is_named(
    content: bytes, small_sets: dict[str, PublishedSet], tmp_path: Path
) -> None:
    root = made(small_sets["MVTec AD"], tmp_path / "set")
    (root / "pill" / "test" / "hole" / "001.png").write_bytes(content)
    result = checked(root / "pill")
    assert result.exit_code == 1
    assert "pill: 1 files are empty or cut short: test/hole/001.png" in result.output


def test_what_is_there_too_often_is_named(
    small_sets: dict[str, PublishedSet], tmp_path: Path
) -> None:
    root = made(small_sets["MVTec AD"], tmp_path / "set")
    write(root / "cable" / "train" / "good" / "000 (1).png")
    assert "cable: 4 train/good where 3 are published" in checked(root).output


def test_a_mask_under_another_name_is_no_mask_of_its_image(
    small_sets: dict[str, PublishedSet], tmp_path: Path
) -> None:
    root = made(small_sets["MPDD"], tmp_path / "set") / "tubes"
    mask = root / "ground_truth" / "hole" / "001_mask.png"
    mask.rename(mask.with_name("009_mask.png"))
    (fault,) = check(root).categories[0].faults
    assert "no mask" in fault


def test_visa_s_table_without_its_end_is_named(
    small_sets: dict[str, PublishedSet], tmp_path: Path
) -> None:
    root = made(small_sets["VisA"], tmp_path / "set")
    table = root / "split_csv" / "1cls.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    assert "pipe_fryum: 6 rows of 1cls.csv where 7 are published" in checked(root).output


def test_a_category_in_a_folder_of_another_name_is_said_which_it_is(
    small_sets: dict[str, PublishedSet], tmp_path: Path
) -> None:
    mvtec(tmp_path / "mine")
    with pytest.raises(DataError, match="say which category it is with --category"):
        check(tmp_path / "mine")
    assert check(tmp_path / "mine", category="screw").is_whole
    with pytest.raises(DataError, match="'nail' is no category of MVTec AD, VisA"):
        check(tmp_path / "mine", category="nail")
    with pytest.raises(DataError, match="no such folder"):
        check(tmp_path / "none")


def test_json_gives_unknown_numbers_as_null(
    small_sets: dict[str, PublishedSet], tmp_path: Path
) -> None:
    root = made(small_sets["DAGM 2007"], tmp_path / "set")
    document = json.loads(checked(root, "--json").output)
    assert document["whole"]
    assert document["categories"]["Class3"]["counts"]["labels of Test"] == {
        "found": 2,
        "published": None,
    }


@pytest.mark.parametrize("title", [title for title in TITLES if "Tile" not in title])
def test_each_layout_is_read_for_training_and_testing(
    title: str, small_sets: dict[str, PublishedSet], tmp_path: Path
) -> None:
    small = small_sets[title]
    name = next(iter(small.categories))
    MAKERS[small.form](tmp_path / name)
    data = layout.read(tmp_path / name)
    assert data.layout == small.form
    assert len(data.require_train()) == 3
    defective = [sample for sample in data.require_test() if sample.is_defective]
    assert all(sample.mask is not None and sample.mask.is_file() for sample in defective)
    good = len(data.test) - len(defective)
    assert (good, len(defective)) == {"mvtec": (2, 4), "dagm": (2, 2), "visa": (2, 2)}[small.form]


def test_the_published_numbers_add_up_to_the_published_totals() -> None:
    totals = {
        one.title: {
            kind: sum(counts[kind] or 0 for counts in one.categories.values())
            for kind in next(iter(one.categories.values()))
        }
        for one in SETS
    }
    in_mvtec, in_mpdd = totals["MVTec AD"], totals["MPDD"]
    of = ("train/good", "test/good", "test, defective")
    assert [in_mvtec[kind] for kind in of] == [3629, 467, 1258]
    assert in_mvtec["classes of defects"] == 73
    assert [in_mpdd[kind] for kind in of] == [888, 176, 282]
    assert (totals["VisA"]["Normal"], totals["VisA"]["Anomaly"]) == (9621, 1200)
    assert totals["DAGM 2007"]["Train"] + totals["DAGM 2007"]["Test"] == 16100
    assert totals["DAGM 2007"]["labels"] == 2100
    assert totals["Magnetic Tile Defect"]["images"] == 1344
