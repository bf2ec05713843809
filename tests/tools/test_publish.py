"""Publishing: what is written, in which order, and what a crash leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffusionad_client.contract import NETWORK_STEPS
from diffusionad_tools.errors import ReleaseError
from diffusionad_tools.release import model_config
from diffusionad_tools.release.repository import releases, versions
from diffusionad_tools.release.staging import staging


def test_a_second_release_takes_the_next_version_and_only_it_is_served(
    make_bundle: Any,
    publish_ungated: Any,
    handmade_model: Any,
    what_triton_would_serve: Any,
    tmp_path: Path,
) -> None:
    second = make_bundle(model=handmade_model(gain=0.75))
    publish_ungated(make_bundle(), tmp_path / "repository")
    publish_ungated(second, tmp_path / "repository")

    assert what_triton_would_serve(tmp_path / "repository") == {"widget": second.metadata.release}
    for step in NETWORK_STEPS:
        model = tmp_path / "repository" / f"widget__{step.value}"
        assert sorted(p.name for p in model.iterdir()) == ["1", "2", "config.pbtxt", "configs"]
        for name in ("config.pbtxt", *(f"configs/{host}.pbtxt" for host in ("cpu", "cuda", "gpu"))):
            config = model_config.read(model / name)
            assert list(config.version_policy.specific.versions) == [2]


def test_step_configurations_differ_between_releases_in_nothing_but_the_versions(
    make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path
) -> None:
    path = tmp_path / "repository" / "widget__segmentation" / "config.pbtxt"
    publish_ungated(make_bundle(), tmp_path / "repository")
    first = path.read_text()
    publish_ungated(make_bundle(model=handmade_model(gain=0.75)), tmp_path / "repository")
    assert path.read_text() == first.replace("versions: 1", "versions: 2")


def test_a_step_configuration_tuned_by_hand_stays_tuned(
    make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path
) -> None:
    path = tmp_path / "repository" / "widget__segmentation" / "config.pbtxt"
    publish_ungated(make_bundle(), tmp_path / "repository")
    path.write_text(path.read_text().replace("count: 1", "count: 3"))
    publish_ungated(make_bundle(model=handmade_model(gain=0.75)), tmp_path / "repository")
    assert model_config.read(path).instance_group[0].count == 3


def test_a_configuration_for_a_host_of_ones_own_stays_and_serves_the_new_release(
    make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path
) -> None:
    model = tmp_path / "repository" / "widget__segmentation"
    publish_ungated(make_bundle(), tmp_path / "repository")
    (model / "configs" / "gpu.pbtxt").unlink()
    tuned = (model / "config.pbtxt").read_text().replace("count: 1", "count: 3")
    (model / "configs" / "many.pbtxt").write_text(tuned)
    publish_ungated(make_bundle(model=handmade_model(gain=0.75)), tmp_path / "repository")
    assert sorted(p.name for p in (model / "configs").iterdir()) == [
        "cpu.pbtxt",
        "cuda.pbtxt",
        "many.pbtxt",
    ]
    config = model_config.read(model / "configs" / "many.pbtxt")
    assert config.instance_group[0].count == 3
    assert list(config.version_policy.specific.versions) == [2]


@pytest.mark.parametrize("name", ["config.pbtxt", "configs/gpu.pbtxt"])
def test_a_step_configuration_with_other_tensors_is_refused(
    make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "repository" / "widget__segmentation" / name
    publish_ungated(make_bundle(), tmp_path / "repository")
    path.write_text(path.read_text().replace("SCORE", "POINTS"))
    with pytest.raises(ReleaseError, match=rf"widget__segmentation/{name}: its tensors"):
        publish_ungated(make_bundle(model=handmade_model(gain=0.75)), tmp_path / "repository")


def test_two_writers_never_work_on_one_repository(tmp_path: Path) -> None:
    with (
        staging(tmp_path / "repository"),
        pytest.raises(ReleaseError, match="another `diffusionad release` has been writing"),
        staging(tmp_path / "repository", wait=0.2),
    ):
        pass
    with staging(tmp_path / "repository"):
        pass


def test_what_a_killed_writer_left_beside_the_repository_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / ".repository.writing" / "candidate" / "widget"
    leftover.mkdir(parents=True)
    with staging(tmp_path / "repository") as folder:
        assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_what_no_writer_left_beside_the_repository_is_named_and_stays(tmp_path: Path) -> None:
    theirs = tmp_path / ".repository.writing" / "thesis.txt"
    theirs.parent.mkdir()
    theirs.write_text("the only copy")
    with (
        pytest.raises(
            ReleaseError, match=r"holds thesis\.txt, which no `diffusionad release` wrote"
        ),
        staging(tmp_path / "repository"),
    ):
        pass
    theirs.rename(tmp_path / "thesis.txt")
    with staging(tmp_path / "repository") as folder:
        theirs.write_text("put there meanwhile")
        (folder / "candidate").mkdir()
    assert [path.name for path in theirs.parent.iterdir()] == ["thesis.txt"]


def test_pruning_leaves_a_version_in_which_something_else_lies(
    make_bundle: Any, publish_ungated: Any, handmade_model: Any, add_ungated: Any, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    publish_ungated(make_bundle(), repository)
    notes = [repository / model / "1" / "notes.txt" for model in ("widget", "widget__segmentation")]
    notes[1].write_text("of the graph")
    for gain in (0.6, 0.7):
        bundle = make_bundle(model=handmade_model(gain=gain))
        said: list[str] = []
        added = add_ungated(bundle, repository, keep=1, say=said.append)
    assert f"{notes[1].parent} stays: it holds notes.txt, which no release wrote" in said
    assert versions(repository / "widget") == [3]
    assert versions(repository / "widget__segmentation") == [1, 3]
    assert notes[1].read_text() == "of the graph"
    assert added.pruned == [2]

    notes[0] = repository / "widget" / "3" / "notes.txt"
    notes[0].write_text("of the release")
    added = add_ungated(make_bundle(model=handmade_model(gain=0.8)), repository, keep=1)
    assert added.pruned == []
    assert [release.version for release in releases(repository, "widget")] == [3, 4]
