"""Publishing: what is written, in which order, and what a crash leaves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffusionad_client import contract
from diffusionad_client.bundle import file_digest
from diffusionad_client.client import Client
from diffusionad_client.contract import Step
from diffusionad_tools.errors import ReleaseError
from diffusionad_tools.release import model_config
from diffusionad_tools.release.repository import served_release
from diffusionad_tools.release.staging import staging
from diffusionad_tools.server.process import ServerSettings, running_server


class Killed(BaseException):
    """Stands for SIGKILL: nothing that the program catches."""


class Killer:
    """Lets `after` changes of the file system happen, and no more: also no cleaning up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
        self.changes = 0
        self._after = after
        for module, name in ((os, "mkdir"), (os, "replace"), (os, "fsync"), (shutil, "rmtree")):
            monkeypatch.setattr(module, name, self._guard(name, getattr(module, name)))

    def _guard(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self.changes >= self._after:
                raise Killed
            self.changes += 1
            return real(*args, **kwargs)

        return guarded


def what_triton_would_serve(repository: Path) -> dict[str, str]:
    """Map each category to its release, by the rules with which Triton loads a repository.

    Fails if there is anything that Triton would refuse: one refused model stops the server.
    """
    if not repository.exists():
        return {}
    models = {folder.name: folder for folder in repository.iterdir() if folder.is_dir()}
    configs = {name: model_config.read(path / "config.pbtxt") for name, path in models.items()}
    served = {name: set(c.version_policy.specific.versions) for name, c in configs.items()}
    releases = {}
    for name, config in configs.items():
        assert config.name == name
        assert served[name], f"{name} serves no version"
        for version in served[name]:
            folder = models[name] / str(version)
            assert folder.is_dir(), f"{name} lacks version {version}"
            if config.platform != "ensemble":
                assert (folder / "model.onnx").stat().st_size > 0
        for step in config.ensemble_scheduling.step:
            assert step.model_version in served[step.model_name]
        if config.platform == "ensemble":
            release = served_release(repository, name)
            assert release is not None
            releases[name] = release.metadata.release
            for step, digest in release.metadata.digests.items():
                version = release.step_versions[Step(step)]
                graph = models[contract.step_model(name, Step(step))] / str(version) / "model.onnx"
                assert file_digest(graph) == digest
    return releases


@pytest.mark.parametrize("releases_before", [0, 1])
def test_a_crash_at_any_change_leaves_a_whole_release(
    make_bundle: Any,
    publish_ungated: Any,
    handmade_model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    releases_before: int,
) -> None:
    first, second = make_bundle(), make_bundle(model=handmade_model(gain=0.75))
    bundle = second if releases_before else first
    seen = []
    for changes in range(1000):
        repository = tmp_path / f"crash-{changes}" / "repository"
        repository.parent.mkdir()
        if releases_before:
            publish_ungated(first, repository)
        with monkeypatch.context() as patch:
            killer = Killer(patch, after=changes)
            try:
                publish_ungated(bundle, repository)
                finished = True
            except Killed:
                finished = False
        seen.append(what_triton_would_serve(repository).get("widget"))
        if finished:
            assert killer.changes == changes
            break
        publish_ungated(bundle, repository)  # the next one finds no obstacle
        assert what_triton_would_serve(repository) == {"widget": bundle.metadata.release}
        assert [p.name for p in repository.parent.iterdir()] == ["repository"]

    old = first.metadata.release if releases_before else None
    switch = seen.index(bundle.metadata.release)
    assert switch > 10
    assert seen == [old] * switch + [bundle.metadata.release] * (len(seen) - switch)


@pytest.mark.server
def test_triton_serves_the_old_release_when_publishing_died_before_the_ensemble(
    make_bundle: Any,
    publish_ungated: Any,
    handmade_model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = handmade_model(gain=0.5)
    repository = tmp_path / "repository"
    publish_ungated(make_bundle(model=old), repository)
    new = make_bundle(model=handmade_model(gain=0.75))
    move = os.replace

    def die_at_the_ensemble(source: Path, target: Path) -> None:
        if Path(target) == repository / "widget" / "config.pbtxt":
            raise Killed
        move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die_at_the_ensemble)
        with pytest.raises(Killed):
            publish_ungated(new, repository)

    assert (repository / "widget__segmentation" / "2" / "model.onnx").exists()
    (image,) = old.images(1)
    with (
        running_server(ServerSettings(repository=repository)) as server,
        Client(server.grpc_url) as client,
    ):
        inspection = client.inspect(image)
    assert inspection.version == "1"
    assert inspection.score == pytest.approx(old.answer(image)[0], abs=1e-6)


def test_a_second_release_takes_the_next_version_and_only_it_is_served(
    make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path
) -> None:
    second = make_bundle(model=handmade_model(gain=0.75))
    publish_ungated(make_bundle(), tmp_path / "repository")
    publish_ungated(second, tmp_path / "repository")

    assert what_triton_would_serve(tmp_path / "repository") == {"widget": second.metadata.release}
    for step in Step:
        model = tmp_path / "repository" / f"widget__{step.value}"
        assert sorted(p.name for p in model.iterdir()) == ["1", "2", "config.pbtxt"]
        config = model_config.read(model / "config.pbtxt")
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


def test_a_step_configuration_with_other_tensors_is_refused(
    make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path
) -> None:
    path = tmp_path / "repository" / "widget__segmentation" / "config.pbtxt"
    publish_ungated(make_bundle(), tmp_path / "repository")
    path.write_text(path.read_text().replace("SCORE", "POINTS"))
    with pytest.raises(ReleaseError, match=r"widget__segmentation/config\.pbtxt: its tensors"):
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
