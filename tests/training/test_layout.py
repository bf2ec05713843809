"""Each layout of a data set is read into the same list of samples."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from diffusionad_training.data import groups, layout
from diffusionad_training.errors import DataError


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(data: layout.DataSet) -> Iterator[tuple[str, str, str | None]]:
    for sample in data.test:
        yield data.name(sample.path), sample.defect, sample.mask and sample.mask.name


def test_mvtec_ad(tmp_path: Path) -> None:
    data = layout.read(
        make(
            *(tmp_path, "train/good/0.png", "test/good/1.png", "test/hole/2.png"),
            "ground_truth/hole/2_mask.png",
        )
    )
    assert data.layout == "mvtec"
    assert [data.name(path) for path in data.train] == ["train/good/0.png"]
    assert list(found(data)) == [
        ("test/good/1.png", "good", None),
        ("test/hole/2.png", "hole", "2_mask.png"),
    ]


def test_a_plain_folder_with_classes_and_masks(tmp_path: Path) -> None:
    data = layout.read(
        make(
            *(tmp_path, "good/0.png", "good/1.png", "test_good/2.png", "scratch/3.jpg"),
            *("masks/scratch/3.png", "dent/4.png"),
        )
    )
    assert data.layout == "plain"
    assert [data.name(path) for path in data.train] == ["good/0.png", "good/1.png"]
    assert list(found(data)) == [
        ("dent/4.png", "dent", None),
        ("test_good/2.png", "good", None),
        ("scratch/3.jpg", "scratch", "3.png"),
    ]


def test_a_folder_of_good_images(tmp_path: Path) -> None:
    data = layout.read(make(tmp_path, "0.png", "1.tif"))
    assert data.layout == "folder"
    assert len(data.train) == 2
    with pytest.raises(DataError, match="no images to test on in the layout 'folder'"):
        data.require_test()


def test_dagm(tmp_path: Path) -> None:
    data = layout.read(
        make(
            *(tmp_path, "Train/0001.PNG", "Train/0002.PNG", "Train/Label/0002_label.PNG"),
            *("Train/Label/Labels.txt", "Test/0003.PNG", "Test/0004.PNG"),
            "Test/Label/0004_label.PNG",
        )
    )
    assert data.layout == "dagm"
    assert [path.name for path in data.train] == ["0001.PNG"]
    assert list(found(data)) == [
        ("Test/0004.PNG", "defect", "0004_label.PNG"),
        ("Test/0003.PNG", "good", None),
    ]


VISA = """object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0.JPG,
candle,test,normal,candle/Data/Images/Normal/1.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/2.JPG,candle/Data/Masks/Anomaly/2.png
fryum,train,normal,fryum/Data/Images/Normal/0.JPG,
"""


@pytest.fixture
def visa(tmp_path: Path) -> Path:
    make(
        *(tmp_path, "candle/Data/Images/Normal/0.JPG", "candle/Data/Images/Normal/1.JPG"),
        *("candle/Data/Images/Anomaly/2.JPG", "candle/Data/Masks/Anomaly/2.png"),
        "split_csv/1cls.csv",
    )
    (tmp_path / "split_csv/1cls.csv").write_text(VISA)
    return tmp_path / "candle"


def test_visa_s_split_says_what_is_trained_on(visa: Path) -> None:
    data = layout.read(visa)
    assert data.layout == "visa"
    assert [path.name for path in data.train] == ["0.JPG"]
    assert [(sample.defect, sample.path.name) for sample in data.test] == [
        ("anomaly", "2.JPG"),
        ("good", "1.JPG"),
    ]
    assert data.test[0].mask == visa / "Data/Masks/Anomaly/2.png"


def test_an_image_that_visa_s_split_names_must_be_there(visa: Path) -> None:
    (visa / "Data/Images/Anomaly/2.JPG").unlink()
    with pytest.raises(DataError, match=r"1cls\.csv, line 4: .*2\.JPG is missing"):
        layout.read(visa)


def test_visa_without_its_split_says_where_it_belongs(visa: Path) -> None:
    (visa.parent / "split_csv/1cls.csv").unlink()
    with pytest.raises(DataError, match=r"1cls\.csv: missing; VisA's split of candle"):
        layout.read(visa)


def test_files_that_are_no_images_are_named(tmp_path: Path) -> None:
    data = layout.read(
        make(
            *(tmp_path, "train/good/0.png", "train/good/notes.txt", "test/hole/1.raw"),
            *("test/hole/2.png", "groups.csv", "train/good/.hidden"),
        )
    )
    assert data.left_out.described() == [
        "2 no images by their suffix: train/good/notes.txt, test/hole/1.raw",
        "1 hidden: train/good/.hidden",
    ]


def test_groups_of_a_plain_folder_know_its_test_images(tmp_path: Path) -> None:
    make(tmp_path, "good/0.png", "good/1.png", "scratch/2.png")
    (tmp_path / "groups.csv").write_text(
        "path,group\ngood/0.png,a\ngood/1.png,b\nscratch/2.png,a\n"
    )
    assert groups.grouping(layout.read(tmp_path)).trainable() == [1]


def test_images_in_subfolders_are_taken_in_every_layout(tmp_path: Path) -> None:
    plain = layout.read(make(tmp_path / "a", "day0/0.png", "day1/0.png", "9.png"))
    assert [plain.name(path) for path in plain.train] == ["9.png", "day0/0.png", "day1/0.png"]
    mvtec = layout.read(
        make(
            *(tmp_path / "b", "train/good/day0/0.png", "test/good/line 1/1.png"),
            *("test/hole/day0/2.png", "test/hole/day1/2.png"),
            *("ground_truth/hole/day0/2_mask.png", "ground_truth/hole/day1/2.png"),
        )
    )
    assert [mvtec.name(path) for path in mvtec.train] == ["train/good/day0/0.png"]
    assert [sample.mask and mvtec.name(sample.mask) for sample in mvtec.test] == [
        *(None, "ground_truth/hole/day0/2_mask.png", "ground_truth/hole/day1/2.png"),
    ]
    dagm = layout.read(
        make(
            *(tmp_path / "c", "Train/1/0001.png", "Train/Label/1/0001_label.PNG"),
            *("Train/2/0002.png", "Test/3/0003.png", "Test/Label/3/0003_label.PNG"),
        )
    )
    assert [dagm.name(path) for path in dagm.train] == ["Train/2/0002.png"]
    assert list(found(dagm)) == [("Test/3/0003.png", "defect", "0003_label.PNG")]


@pytest.mark.parametrize("suffix", ["png", "PNG", "Bmp", "TIF", "gif", "pgm"])
def test_the_suffix_of_a_mask_has_no_case(tmp_path: Path, suffix: str) -> None:
    make(tmp_path, "test/hole/2.JPG", f"ground_truth/hole/2_mask.{suffix}")
    (sample,) = layout.read(tmp_path).test
    assert sample.mask == tmp_path / f"ground_truth/hole/2_mask.{suffix}"


def test_what_macos_puts_beside_images_and_masks_is_none(tmp_path: Path) -> None:
    make(
        *(tmp_path, "train/good/0.png", "train/good/._0.png", "train/good/.DS_Store"),
        *("test/hole/2.png", "test/hole/._2.png", "ground_truth/hole/2_mask.png"),
        *("ground_truth/hole/._2_mask.png", "test/._hole/3.png"),
    )
    data = layout.read(tmp_path)
    assert [path.name for path in data.train] == ["0.png"]
    assert list(found(data)) == [("test/hole/2.png", "hole", "2_mask.png")]
    assert data.left_out.described() == [
        "3 hidden: train/good/.DS_Store, train/good/._0.png, test/hole/._2.png"
    ]


@pytest.mark.parametrize("good", ["good", "Good", "GOOD", "OK", "ok"])
def test_good_has_several_names(tmp_path: Path, good: str) -> None:
    make(tmp_path / "mvtec", f"train/{good}/0.png", f"test/{good}/1.png", "test/hole/2.png")
    make(tmp_path / "plain", f"{good}/0.png", "test_good/1.png", "hole/2.png")
    for name in ("mvtec", "plain"):
        data = layout.read(tmp_path / name)
        assert data.layout == name
        assert [path.name for path in data.train] == ["0.png"]
        assert [sample.defect for sample in data.test] == ["good", "hole"]


def test_a_folder_with_defective_images_in_it_is_not_trained_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder 'NG' in it can hardly hold good images"):
        layout.read(make(tmp_path, "a/0.png", "NG/1.png"))


def test_masks_beside_good_images_are_no_images(tmp_path: Path) -> None:
    data = layout.read(make(tmp_path, "0.png", "masks/0.png", "1.png"))
    assert [path.name for path in data.train] == ["0.png", "1.png"]


@pytest.mark.parametrize(
    "table",
    [
        "path,group\ngood/0.png,a\ngood/1.png,a \nscratch/2.png,b\n",
        "\ufeffpath,group\r\ngood/0.png,a\r\ngood/1.png,a\r\nscratch/2.png,b\r\n",
        " path , group\ngood/0.png , a\n good/1.png,a\u00a0\n\nscratch/2.png,b\n",
    ],
)
def test_what_nobody_sees_splits_no_group(tmp_path: Path, table: str) -> None:
    make(tmp_path, "good/0.png", "good/1.png", "scratch/2.png")
    (tmp_path / "groups.csv").write_bytes(table.encode())
    assert groups.grouping(layout.read(tmp_path)).groups == ["a", "a"]


@pytest.mark.parametrize(
    "table", ["path,group\ngood/ü.png,a\n".encode("latin-1"), "path,group\n".encode("utf-16")]
)
def test_a_table_that_is_not_utf_8_is_refused(tmp_path: Path, table: bytes) -> None:
    make(tmp_path, "good/0.png")
    (tmp_path / "groups.csv").write_bytes(table)
    with pytest.raises(DataError, match="cannot be read: .*; save it as CSV in UTF-8"):
        groups.grouping(layout.read(tmp_path))


def test_visa_s_split_that_is_not_utf_8_is_refused(visa: Path) -> None:
    (visa.parent / "split_csv/1cls.csv").write_text(VISA, encoding="utf-16")
    with pytest.raises(DataError, match=r"1cls\.csv: cannot be read"):
        layout.read(visa)


def test_accents_that_are_put_together_differently_are_the_same_name(tmp_path: Path) -> None:
    make(tmp_path, "good/u\u0308.png", "good/b.png")  # as macOS writes it
    (tmp_path / "groups.csv").write_text(
        "path,group\ngood/\u00fc.png,1\ngood/b.png,2\n", encoding="utf-8"
    )
    assert groups.grouping(layout.read(tmp_path)).groups == ["2", "1"]
