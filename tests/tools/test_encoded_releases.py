"""What a category's encoded form is in a repository: shared, versioned, and never left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffusionad_client.contract import Step
from diffusionad_tools.errors import ReleaseError, RepositoryError
from diffusionad_tools.release import model_config
from diffusionad_tools.release.check import category_problems
from diffusionad_tools.release.promote import promote, rollback
from diffusionad_tools.release.thresholds import set_thresholds
from diffusionad_tools.release.validate import validate_category

FORMS = ("widget", "widget__encoded")


@pytest.fixture
def repository(make_bundle: Any, publish_ungated: Any, tmp_path: Path) -> Path:
    """One release, with its encoded form."""
    publish_ungated(make_bundle(), tmp_path / "repository", encoded=True)
    return tmp_path / "repository"


def test_both_forms_serve_the_same_steps_of_the_same_release(
    repository: Path, make_bundle: Any, publish_ungated: Any, handmade_model: Any
) -> None:
    publish_ungated(make_bundle(model=handmade_model(gain=0.75)), repository, encoded=True)
    plain, encoded = (model_config.read(repository / name / "config.pbtxt") for name in FORMS)
    decoding, *steps = encoded.ensemble_scheduling.step
    assert (decoding.model_name, decoding.model_version) == ("image_decoding_32", 1)
    assert steps == list(plain.ensemble_scheduling.step)
    assert encoded.version_policy == plain.version_policy
    assert encoded.parameters["diffusionad"] == plain.parameters["diffusionad"]


def test_other_thresholds_are_those_of_both_forms(
    repository: Path, what_triton_would_serve: Any
) -> None:
    now = set_thresholds(repository, "widget", accept=0.1).release
    assert what_triton_would_serve(repository) == dict.fromkeys(FORMS, now.metadata.release)


def test_rolling_back_takes_both_forms_back(
    repository: Path,
    make_bundle: Any,
    publish_ungated: Any,
    handmade_model: Any,
    what_triton_would_serve: Any,
) -> None:
    first = what_triton_would_serve(repository)
    publish_ungated(make_bundle(model=handmade_model(gain=0.75)), repository, encoded=True)
    assert what_triton_would_serve(repository) != first
    rollback(repository, "widget")
    assert what_triton_would_serve(repository) == first


def test_a_release_from_before_the_encoded_form_gets_it_when_it_is_served(
    make_bundle: Any,
    publish_ungated: Any,
    handmade_model: Any,
    what_triton_would_serve: Any,
    tmp_path: Path,
) -> None:
    repository = tmp_path / "repository"
    old, new = make_bundle(), make_bundle(model=handmade_model(gain=0.75))
    publish_ungated(old, repository, encoded=False)
    publish_ungated(new, repository, encoded=True)
    promote(repository, "widget", 1)
    assert what_triton_would_serve(repository) == dict.fromkeys(FORMS, old.metadata.release)
    assert category_problems(repository, "widget") == []
    promote(repository, "widget", 2)
    assert what_triton_would_serve(repository) == dict.fromkeys(FORMS, new.metadata.release)


def remove_decoding(repository: Path) -> None:
    (repository / "image_decoding_32").rename(repository.parent / "gone")


def empty_model(repository: Path) -> None:
    (repository / "image_decoding_32" / "1" / "model.py").write_bytes(b"")


def batch_less(repository: Path) -> None:
    path = repository / "image_decoding_32" / "config.pbtxt"
    path.write_text(path.read_text().replace("max_batch_size: 8", "max_batch_size: 4"))


def skip_the_decoding(repository: Path) -> None:
    path = repository / "widget__encoded" / "config.pbtxt"
    config = model_config.read(path)
    del config.ensemble_scheduling.step[0]
    path.write_text(model_config.render(config))


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (remove_decoding, "image_decoding_32/config.pbtxt: missing"),
        (empty_model, "image_decoding_32/1/model.py: missing or empty, and widget__encoded names"),
        (batch_less, "image_decoding_32/config.pbtxt: max_batch_size is 4, categories take 8"),
        (skip_the_decoding, "widget__encoded/config.pbtxt: ensemble_scheduling is"),
    ],
)
def test_what_keeps_the_encoded_form_from_being_served_is_found_before_anything_changes(
    repository: Path, harm: Callable[[Path], None], problem: str
) -> None:
    harm(repository)
    with pytest.raises(RepositoryError) as caught:
        set_thresholds(repository, "widget", accept=0.1)
    assert "is incomplete, so nothing was changed" in str(caught.value)
    assert problem in str(caught.value)


def test_a_command_that_died_between_the_forms_is_found_and_can_be_finished(
    repository: Path,
    make_bundle: Any,
    publish_ungated: Any,
    handmade_model: Any,
    what_triton_would_serve: Any,
) -> None:
    encoded = repository / "widget__encoded" / "config.pbtxt"
    before = encoded.read_text()
    publish_ungated(make_bundle(model=handmade_model(gain=0.75)), repository, encoded=True)
    after = what_triton_would_serve(repository)
    encoded.write_text(before)
    for step in Step:
        path = repository / f"widget__{step.value}" / "config.pbtxt"
        path.write_text(path.read_text().replace("versions: 2", "versions: 1\n  versions: 2"))

    (configurations, left_out) = validate_category(repository, "widget")
    assert configurations.details == [
        "widget and its encoded form serve different versions, [1, 2]: an interrupted command; "
        "run it again"
    ]
    assert not left_out.passed
    promote(repository, "widget", 2)
    assert what_triton_would_serve(repository) == after


def test_categories_of_one_size_share_the_model_that_decodes(
    make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    publish_ungated(make_bundle(), repository, encoded=True)
    (config,) = repository.glob("image_decoding_32/config.pbtxt")
    tuned = config.read_text().replace("count: 2", "count: 7")
    config.write_text(tuned)
    publish_ungated(make_bundle(category="gadget"), repository, encoded=True)
    publish_ungated(
        make_bundle(category="wide", model=handmade_model(size=48)), repository, encoded=True
    )
    found = sorted(path.relative_to(repository) for path in repository.glob("image_*/*"))
    assert [str(path) for path in found] == [
        *("image_decoding_32/1", "image_decoding_32/config.pbtxt"),
        *("image_decoding_48/1", "image_decoding_48/config.pbtxt"),
    ]
    assert config.read_text() == tuned


def test_a_release_gives_an_older_decoding_configuration_its_queue_and_leaves_the_rest(
    make_bundle: Any, publish_ungated: Any, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    publish_ungated(make_bundle(), repository, encoded=True)
    (path,) = repository.glob("image_decoding_32/config.pbtxt")
    whole = model_config.read(path)
    older = model_config.read(path)
    older.ClearField("dynamic_batching")
    older.instance_group[0].count = whole.instance_group[0].count = 7
    path.write_text(model_config.render(older))
    publish_ungated(make_bundle(category="gadget"), repository, encoded=True)
    assert model_config.read(path) == whole

    whole.dynamic_batching.Clear()  # no queue, by choice
    path.write_text(model_config.render(whole))
    publish_ungated(make_bundle(category="nut"), repository, encoded=True)
    assert model_config.read(path) == whole


def test_images_of_another_depth_are_decoded_by_a_model_of_their_own(
    make_bundle: Any, publish_ungated: Any, what_triton_would_serve: Any, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    full, twelve = make_bundle(), make_bundle(depth=12)
    publish_ungated(full, repository, encoded=True)
    publish_ungated(make_bundle(category="gadget"), repository, encoded=True)
    before = what_triton_would_serve(repository)
    publish_ungated(twelve, repository, encoded=True)
    config = model_config.read(repository / "image_decoding_32_12_bits" / "config.pbtxt")
    assert config.parameters["depth"].string_value == "12"
    assert "depth" not in (repository / "image_decoding_32" / "config.pbtxt").read_text()
    encoded = model_config.read(repository / "widget__encoded" / "config.pbtxt")
    assert encoded.ensemble_scheduling.step[0].model_name == "image_decoding_32_12_bits"
    assert category_problems(repository, "widget") == []
    set_thresholds(repository, "widget", accept=0.1)
    assert category_problems(repository, "widget") == []
    promote(repository, "widget", 1)
    assert what_triton_would_serve(repository) == before
    assert category_problems(repository, "widget") == category_problems(repository, "gadget") == []
    promote(repository, "widget", 2)
    assert category_problems(repository, "widget") == []


def test_another_way_to_decode_is_a_new_version_beside_the_old(
    make_bundle: Any, publish_ungated: Any, what_triton_would_serve: Any, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    publish_ungated(make_bundle(), repository, encoded=True)
    old = repository / "image_decoding_32" / "1" / "model.py"
    old.write_text("# as an older installation wrote it\n")
    publish_ungated(make_bundle(category="gadget"), repository, encoded=True)
    what_triton_would_serve(repository)
    assert decoder_of(repository, "widget") == 1
    assert decoder_of(repository, "gadget") == 2
    publish_ungated(make_bundle(category="part"), repository, encoded=True)
    assert decoder_of(repository, "part") == 2


def decoder_of(repository: Path, category: str) -> int:
    config = model_config.read(repository / f"{category}__encoded" / "config.pbtxt")
    version: int = config.ensemble_scheduling.step[0].model_version
    return version


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('string_value: "32"', 'string_value: "64"', "its parameter size is '64', not '32'"),
        ("IMAGE_BYTES", "FILES", "its tensors are not those of image_decoding_32"),
        ("all {\n  }", "latest {\n  num_versions: 1\n  }", "it does not serve all of its versions"),
    ],
)
def test_a_decoding_configuration_that_breaks_the_contract_is_refused(
    make_bundle: Any, publish_ungated: Any, tmp_path: Path, before: str, after: str, message: str
) -> None:
    repository = tmp_path / "repository"
    publish_ungated(make_bundle(), repository, encoded=True)
    config = repository / "image_decoding_32" / "config.pbtxt"
    config.write_text(config.read_text().replace(before, after))
    with pytest.raises(ReleaseError, match=message):
        publish_ungated(make_bundle(category="gadget"), repository, encoded=True)
