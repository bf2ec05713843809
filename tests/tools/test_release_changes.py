"""What a repository serves after promote, rollback, thresholds, pruning, and `add --name`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.cli import main
from diffusionad_client.contract import NETWORK_STEPS, Step
from diffusionad_tools.errors import RepositoryError
from diffusionad_tools.release import model_config
from diffusionad_tools.release.promote import promote, rollback
from diffusionad_tools.release.repository import (
    categories,
    find_release,
    releases,
    served_release,
    versions,
)

NETWORKS = tuple(f"widget__{step.value}" for step in NETWORK_STEPS)


def release(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["release", *map(str, arguments)])


@pytest.fixture
def three(make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path) -> Path:
    """A repository with three releases, the third served."""
    for gain in (0.25, 0.5, 0.75):
        publish_ungated(make_bundle(model=handmade_model(gain=gain)), tmp_path / "repository")
    return tmp_path / "repository"


def served(repository: Path, category: str = "widget") -> int:
    found = served_release(repository, category)
    assert found is not None
    return found.version


def test_promote_serves_an_earlier_release_and_its_steps(
    three: Path, what_triton_would_serve: Any
) -> None:
    result = release("promote", "widget", 1, "--repository", three)
    assert result.exit_code == 0, result.output
    assert "serves widget version 1, release" in result.stdout
    assert "(before: version 3)" in result.stdout
    expected = find_release(three, "widget", 1).metadata.release
    assert what_triton_would_serve(three) == {"widget": expected}
    for step in NETWORK_STEPS:
        config = model_config.read(three / f"widget__{step.value}" / "config.pbtxt")
        assert list(config.version_policy.specific.versions) == [1]


def test_promoting_what_is_served_already_changes_nothing(three: Path) -> None:
    before = contents(three)
    result = release("promote", "widget", 3, "--repository", three)
    assert result.exit_code == 0
    assert "Nothing to change" in result.stdout
    assert contents(three) == before


def test_rolling_back_goes_back_by_one_each_time(three: Path) -> None:
    assert release("rollback", "widget", "--repository", three).exit_code == 0
    assert served(three) == 2
    assert release("rollback", "widget", "--repository", three).exit_code == 0
    assert served(three) == 1


def test_rolling_back_returns_to_what_was_served_before_and_not_to_the_number_below(
    three: Path,
) -> None:
    promote(three, "widget", 1)
    promote(three, "widget", 2)
    assert rollback(three, "widget").release.version == 1
    assert rollback(three, "widget").release.version == 3


def test_rolling_back_to_a_version_forgets_what_came_after_it(three: Path) -> None:
    rollback(three, "widget", to=1)
    assert served(three) == 1
    result = release("rollback", "widget", "--repository", three)
    assert result.exit_code == 1
    assert "no version that was served before it is left; name one with --to" in result.stderr
    assert served(three) == 1


def test_a_release_is_published_as_it_was_whatever_was_served_before_it(three: Path) -> None:
    published = (three / "widget" / "3" / "release.pbtxt").read_text()
    promote(three, "widget", 1)
    promote(three, "widget", 3)
    config = model_config.read(three / "widget" / "config.pbtxt")
    model_config.remember(config, [])
    assert model_config.render(config) == published


def test_an_unknown_version_is_named_with_those_there_are(three: Path) -> None:
    before = contents(three)
    for command in (("promote", "widget", 7), ("rollback", "widget", "--to", 7)):
        result = release(*command, "--repository", three)
        assert result.exit_code == 1
        assert f"widget in {three} has no version 7; it has 1, 2, 3" in result.stderr
    assert contents(three) == before


def test_an_unknown_category_is_named_with_those_there_are(three: Path) -> None:
    for command in (("promote", "bolt", 1), ("rollback", "bolt"), ("thresholds", "bolt")):
        options = ("--accept", 0.1) if command[0] == "thresholds" else ()
        result = release(*command, *options, "--repository", three)
        assert result.exit_code == 1
        assert "no category 'bolt'; it holds widget" in result.stderr


def test_a_repository_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    result = release("promote", "widget", 1, "--repository", tmp_path / "deep" / "nowhere")
    assert result.exit_code == 1
    assert "nowhere: no such model repository" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_thresholds_are_a_release_of_the_ensemble_and_its_judgement_alone(
    three: Path, what_triton_would_serve: Any
) -> None:
    before = find_release(three, "widget")
    networks = {p: c for p, c in contents(three).items() if p.startswith(NETWORKS)}

    result = release(
        *("thresholds", "widget", "--accept", 0.125, "--reject", 0.5, "--pixel", 0.75),
        *("--repository", three),
    )

    assert result.exit_code == 0, result.output
    after = find_release(three, "widget")
    assert after.version == 4
    assert after.step_versions == {**before.step_versions, Step.JUDGEMENT: 4}
    assert after.metadata.thresholds == Thresholds(accept=0.125, reject=0.5)
    assert after.metadata.pixel_threshold == 0.75
    assert after.metadata.digests == before.metadata.digests
    assert after.metadata.release == after.metadata.changed().release != before.metadata.release
    assert "set by hand after release " + before.metadata.release in str(
        after.metadata.calibration.warning
    )
    assert {p: c for p, c in contents(three).items() if p.startswith(NETWORKS)} == networks
    assert what_triton_would_serve(three) == {"widget": after.metadata.release}


def test_thresholds_that_are_not_given_stay(three: Path) -> None:
    assert release("thresholds", "widget", "--accept", 0.1, "--repository", three).exit_code == 0
    metadata = find_release(three, "widget").metadata
    assert metadata.thresholds == Thresholds(accept=0.1, reject=0.3)
    assert metadata.pixel_threshold == find_release(three, "widget", 3).metadata.pixel_threshold


def test_thresholds_can_be_rolled_back(three: Path) -> None:
    release("thresholds", "widget", "--accept", 0.1, "--repository", three)
    assert rollback(three, "widget").release.version == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--accept", 0.9), "the accept threshold (0.9) lies above the reject threshold (0.3)"),
        (("--accept", "nan"), "the accept threshold must be a number in [0, 1], not nan"),
        (("--reject", 40), "the reject threshold must lie in [0, 1], as scores do, not 40.0"),
        (("--pixel", "inf"), "the pixel threshold must lie in [0, 1]"),
        ((), "give --accept, --reject or --pixel"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(
    three: Path, options: tuple[object, ...], message: str
) -> None:
    before = contents(three)
    result = release("thresholds", "widget", *options, "--repository", three)
    assert result.exit_code == 1
    assert message in result.stderr
    assert contents(three) == before


def test_thresholds_that_are_served_already_change_nothing(three: Path) -> None:
    before = contents(three)
    result = release("thresholds", "widget", "--accept", 0.2, "--repository", three)
    assert "Nothing to change" in result.stdout
    assert contents(three) == before


def test_adding_keeps_three_releases(
    three: Path, make_bundle: Any, add_ungated: Any, handmade_model: Any
) -> None:
    added = add_ungated(make_bundle(model=handmade_model(gain=0.9)), three)
    assert added.pruned == [1]
    for model in three.iterdir():
        assert versions(model) == [2, 3, 4]


def test_what_was_served_before_stays_however_old_it_is(
    three: Path, make_bundle: Any, add_ungated: Any, handmade_model: Any
) -> None:
    promote(three, "widget", 1)
    add_ungated(make_bundle(model=handmade_model(gain=0.9)), three, keep=2)
    assert [r.version for r in releases(three, "widget")] == [1, 4]
    assert rollback(three, "widget").release.version == 1


def test_steps_that_a_kept_release_pins_are_not_pruned(
    three: Path, make_bundle: Any, add_ungated: Any, handmade_model: Any
) -> None:
    release("thresholds", "widget", "--accept", 0.1, "--repository", three)
    added = add_ungated(make_bundle(model=handmade_model(gain=0.9)), three, keep=2)
    assert added.pruned == [1, 2, 3]
    assert versions(three / "widget") == [4, 5]
    assert versions(three / "widget__segmentation") == [3, 5]
    expected = {**dict.fromkeys(NETWORK_STEPS, 3), Step.JUDGEMENT: 4}
    assert rollback(three, "widget").release.step_versions == expected


def test_steps_that_an_ensemble_of_somebody_else_pins_are_not_pruned(
    three: Path, make_bundle: Any, add_ungated: Any, handmade_model: Any
) -> None:
    theirs = model_config.read(three / "widget" / "1" / "release.pbtxt")
    theirs.name = "their-own"
    theirs.parameters.clear()
    (three / "their-own" / "1").mkdir(parents=True)
    (three / "their-own" / "config.pbtxt").write_text(model_config.render(theirs))
    add_ungated(make_bundle(model=handmade_model(gain=0.9)), three, keep=1)
    assert versions(three / "widget__segmentation") == [1, 4]


def test_a_number_is_never_given_twice(
    three: Path, make_bundle: Any, add_ungated: Any, handmade_model: Any
) -> None:
    rollback(three, "widget", to=1)
    added = add_ungated(make_bundle(model=handmade_model(gain=0.9)), three, keep=1)
    assert added.version == 4
    assert add_ungated(make_bundle(), three, keep=1).version == 5


def test_a_bundle_can_be_installed_beside_the_category_that_it_may_replace(
    three: Path, make_bundle: Any, add_ungated: Any, what_triton_would_serve: Any
) -> None:
    bundle = make_bundle()
    add_ungated(bundle, three, name="widget-candidate")
    assert categories(three) == ["widget", "widget-candidate"]
    metadata = find_release(three, "widget-candidate").metadata
    assert metadata.category == "widget-candidate"
    assert metadata.release == metadata.changed().release != bundle.metadata.release
    assert served(three) == 3
    assert set(what_triton_would_serve(three)) == {"widget", "widget-candidate"}


def test_list_tells_what_was_served_before_and_when_each_was_published(three: Path) -> None:
    promote(three, "widget", 1)
    listed = json.loads(release("list", "--repository", three, "--json").stdout)
    assert [r["served_before"] for r in listed if r["served"]] == [[1, 2, 3]]
    assert [r["steps"]["segmentation"] for r in listed] == [1, 2, 3]
    assert all(r["published"].endswith("+00:00") for r in listed)


def test_a_release_file_that_is_gone_is_named(three: Path) -> None:
    (three / "widget" / "3" / "release.pbtxt").unlink()
    with pytest.raises(RepositoryError, match=r"widget/3/release\.pbtxt: missing"):
        find_release(three, "widget")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
