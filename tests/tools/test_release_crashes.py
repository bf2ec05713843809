"""Every command that changes a repository, killed at each of its writes.

What is left is looked at by the rules with which Triton loads a repository,
then put before real servers: one that reloads at every step, one that polls,
and one that is started anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tritonclient.grpc as triton

from diffusionad_client.artifacts.bundle import Bundle
from diffusionad_client.errors import DiffusionADError
from diffusionad_client.sdk.client import Client
from diffusionad_client.sdk.inspection import Inspection
from diffusionad_tools.release import durable, model_config, publish
from diffusionad_tools.release.model_config import versions_named
from diffusionad_tools.release.procedure import Procedure
from diffusionad_tools.release.promote import promote, rollback
from diffusionad_tools.release.repository import config_files, served_release
from diffusionad_tools.release.thresholds import set_thresholds
from diffusionad_tools.server.process import ServerSettings, TritonProcess, running_server

CHANGES = ["first add", "add that prunes", "promote", "rollback", "thresholds"]
ACROSS = ["add of a newer contract", "back to an older contract"]
# Of each network the default and those for three kinds of hosts, and the judgement's.
CONFIGS = 3 * 4 + 1
GAINS = {1: 0.5, 2: 0.75, 3: 0.25}  # of the model in each version
POLL_S = 1
SETTLED = Procedure(settle=1)


@dataclass
class Remains:
    """What kills at successive writes leave of a repository, the same at each of them."""

    repository: Path  # a copy; what was written aside lies beside it
    writes: int  # at how many of the change's writes a kill leaves this


class Witness:
    """Keeps what SIGKILL would leave at each change of the file system, from just before it.

    One run shows all: a killed process changes nothing more, so what lies there
    before a change is what a kill at that change leaves. The last `Remains` are
    the whole of the change.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, repository: Path, kept: Path) -> None:
        self.remains: list[Remains] = []
        self._repository = repository
        self._kept = kept
        self._content = ""
        self._looking = False
        for module, name in ((os, "mkdir"), (os, "replace"), (os, "fsync"), (shutil, "rmtree")):
            monkeypatch.setattr(module, name, self._watched(getattr(module, name)))

    def _watched(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            if not self._looking:
                self.look()
            return real(*args, **kwargs)

        return watched

    def look(self) -> None:
        """Count a write; copy the repository if it is another than before the last."""
        content = content_of(self._repository)
        if content != self._content:  # most writes are aside
            self._content = content
            copy = self._kept / str(len(self.remains)) / self._repository.name
            self._looking = True  # copying makes folders, too
            shutil.copytree(self._repository.parent, copy.parent)
            self._looking = False
            self.remains.append(Remains(copy, 0))
        self.remains[-1].writes += 1


@dataclass
class Scene:
    """A repository of three releases, and the change that is made to it."""

    add: Callable[..., Any]
    publish_under: Callable[..., None]
    bundles: dict[int, Bundle]
    encoded: bool = False  # the category has an encoded form
    before: dict[str, Path] = field(default_factory=dict)  # repositories to start from

    def prepare(self, change: str, repository: Path) -> None:
        """Lay the repository out as it is before the change."""
        counts = dict(zip(("first add", "add that prunes", *ACROSS), (0, 2, 1, 2), strict=True))
        releases = counts.get(change, 3)
        key = f"{releases}, the first of contract 1" if change in ACROSS else str(releases)
        if key not in self.before:
            self.before[key] = self.bundles[1].folder.parent.parent / f"before-{key}"
            for version in range(1, releases + 1):
                if change in ACROSS and version == 1:
                    old = self.bundles[1]
                    self.publish_under(1, old, self.before[key], encoded=self.encoded)
                    continue
                self.add(self.bundles[version], self.before[key], encoded=self.encoded)
        if self.before[key].exists():
            shutil.copytree(self.before[key], repository)

    def change(self, change: str, repository: Path) -> None:
        """Make the change. Made once more, it finishes what is left of it."""
        match change:
            case "first add":
                self.add(self.bundles[1], repository, encoded=self.encoded)
            case "add that prunes":
                self.add(self.bundles[3], repository, encoded=self.encoded, keep=1)
            case "promote":
                promote(repository, "widget", 1)
            case "rollback":
                rollback(repository, "widget", to=2)
            case "add of a newer contract":
                self.add(self.bundles[2], repository, encoded=self.encoded)
            case "back to an older contract":
                rollback(repository, "widget", to=1)
            case "thresholds":
                set_thresholds(repository, "widget", accept=0.125)


@pytest.fixture
def scene(make_bundle: Any, add_ungated: Any, publish_under: Any, handmade_model: Any) -> Scene:
    bundles = {v: make_bundle(model=handmade_model(gain=gain)) for v, gain in GAINS.items()}
    return Scene(add_ungated, publish_under, bundles)


@pytest.fixture
def check_inspection(scene: Scene, handmade_model: Any) -> Callable[[Inspection, Any], None]:
    """Holds an answer against what numpy computes of the release that gave it."""
    by_digest = {
        bundle.metadata.digests["noise_prediction"]: handmade_model(gain=GAINS[version])
        for version, bundle in scene.bundles.items()
    }
    releases = {b.metadata.release: b.metadata.digests for b in scene.bundles.values()}

    def check(inspection: Inspection, image: Any) -> None:
        # A release of thresholds alone is made on that of version 3.
        digests = releases.get(inspection.release, scene.bundles[3].metadata.digests)
        expected, _, _ = by_digest[digests["noise_prediction"]].answer(image)
        assert inspection.score == pytest.approx(expected, abs=1e-6)

    return check


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES + ACROSS)
def test_a_crash_at_any_write_leaves_a_whole_release_and_no_obstacle(
    scene: Scene,
    what_triton_would_serve: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    scene.encoded = True
    seen: list[str | None] = []
    seen_encoded: list[str | None] = []
    for left in _kills(scene, change, tmp_path, monkeypatch):
        found = what_triton_would_serve(left.repository)
        seen += [found.get("widget")] * left.writes
        seen_encoded += [found.get("widget__encoded")] * left.writes
        scene.change(change, left.repository)
        expected = _finished(scene, change, left.repository)
        forms = dict.fromkeys(("widget", "widget__encoded"), expected)
        assert what_triton_would_serve(left.repository) == forms
        assert [p.name for p in left.repository.parent.iterdir()] == ["repository"]

    found = served_release(left.repository, "widget")
    assert found is not None
    assert found.metadata.contract == (1 if change == ACROSS[1] else 2)
    old, new = seen[0], seen[-1]
    assert old != new
    switch = seen.index(new)
    assert switch > 5
    assert seen == [old] * switch + [new] * (len(seen) - switch)
    switch = seen_encoded.index(new)  # the other form's own, just after
    assert seen_encoded == [old] * switch + [new] * (len(seen) - switch)


def _finished(scene: Scene, change: str, repository: Path) -> str:
    """Check that only what is served is loaded, and nothing lies about; name what is served."""
    served = served_release(repository, "widget")
    assert served is not None
    for step, version in served.step_versions.items():
        model = repository / f"widget__{step.value}"
        for config in config_files(model):
            assert versions_named(config) == {version}
        kept = {p.name for p in model.iterdir() if p.is_dir()} - {"configs"}
        if change == "add that prunes":
            assert kept == {str(version)}
    gain = {"first add": 1, "promote": 1, "rollback": 2, ACROSS[0]: 2, ACROSS[1]: 1}.get(change, 3)
    assert served.metadata.digests == scene.bundles[gain].metadata.digests
    assert served.metadata.thresholds.accept == (0.125 if change == "thresholds" else 0.2)
    return served.metadata.release


def test_a_process_that_is_really_killed_leaves_no_lock_behind(
    scene: Scene, what_triton_would_serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    scene.prepare("promote", repository)
    witnessed = _kills(scene, "promote", tmp_path, monkeypatch)
    narrowing = CONFIGS + 1 + 1  # after all configurations serve both, and the ensemble's
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from diffusionad_tools.release import durable, promote\n"
        "move, moved = durable.move_into_place, []\n"
        "def die_while_narrowing(source, target):\n"
        "    moved.append(target)\n"
        f"    if len(moved) == {narrowing}:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    move(source, target)\n"
        "durable.move_into_place = die_while_narrowing\n"
        "promote.promote(Path(sys.argv[1]), 'widget', 1)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, repository], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert content_of(repository) in [content_of(left.repository) for left in witnessed]
    assert (tmp_path / ".repository.writing").exists()
    release = {v: b.metadata.release for v, b in scene.bundles.items()}
    assert what_triton_would_serve(repository) == {"widget": release[1]}

    rollback(repository, "widget", procedure=Procedure(wait=0))

    assert what_triton_would_serve(repository) == {"widget": release[3]}
    assert not (tmp_path / ".repository.writing").exists()


@pytest.mark.server
@pytest.mark.long
def test_a_server_that_reloads_at_any_moment_always_serves_a_whole_release(
    scene: Scene,
    check_inspection: Any,
    handmade_model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reload takes half a second. In short, a server that polls, below."""
    repository = tmp_path / "repository"
    scene.prepare("add that prunes", repository)
    (image,) = handmade_model().images(1)
    answered: list[str] = []  # by which version, after each reload
    switches: list[list[str]] = []  # and of these, just before and just after each switch
    with controlled_server(monkeypatch, repository, "explicit") as url, Client(url) as client:
        control = triton.InferenceServerClient(url)

        def reload() -> str:
            control.load_model("widget")
            inspection = client.inspect(image)
            check_inspection(inspection, image)
            answered.append(inspection.version)
            return inspection.version

        def reload_after(real: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
            def move(source: Path, target: Path) -> None:
                if target == repository / "widget" / "config.pbtxt":
                    before = reload()
                    real(source, target)
                    switches.append([before, reload()])
                else:
                    real(source, target)
                    reload()

            return move

        for name in ("move_into_place", "move_out"):
            monkeypatch.setattr(durable, name, reload_after(getattr(durable, name)))
        scene.add(scene.bundles[3], repository, keep=2)
        set_thresholds(repository, "widget", accept=0.125)
        rollback(repository, "widget", to=2)
        promote(repository, "widget", 3)
        control.close()

    assert switches == [["2", "3"], ["3", "4"], ["4", "2"], ["2", "3"]]
    assert [version for version, _ in groupby(answered)] == ["2", "3", "4", "2", "3"]
    assert len(answered) > 2 * len(switches) + 60


@pytest.mark.server
@pytest.mark.slow
def test_no_request_fails_on_a_server_that_polls_while_releases_change(
    scene: Scene,
    check_inspection: Any,
    handmade_model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository = tmp_path / "repository"
    scene.prepare("add that prunes", repository)
    (image,) = handmade_model().images(1)
    answers: list[Inspection | DiffusionADError] = []
    over = threading.Event()
    with (
        controlled_server(monkeypatch, repository, "poll") as url,
        Client(url, "widget", retry=False) as client,
        triton.InferenceServerClient(url) as control,
    ):

        def settle(seconds: float) -> None:
            """Wait as long as the server takes here and now; a fixed time would be a guess."""
            if seconds:
                wait_until_loaded(control, repository)

        monkeypatch.setattr(publish, "time", SimpleNamespace(sleep=settle))

        def ask() -> None:
            while not over.is_set():
                try:
                    answers.append(client.inspect(image))
                except DiffusionADError as exc:
                    answers.append(exc)
                time.sleep(0.02)  # or else nothing is left of the machine to load models with

        line = threading.Thread(target=ask)
        line.start()
        try:
            scene.add(scene.bundles[3], repository, procedure=SETTLED)
            wait_until_loaded(control, repository)
            set_thresholds(repository, "widget", accept=0.125, procedure=SETTLED)
            wait_until_loaded(control, repository)
            rollback(repository, "widget", to=2, procedure=SETTLED)
            wait_until_loaded(control, repository)
            answers.append(client.inspect(image))
        finally:
            over.set()
            line.join()

    assert [answer for answer in answers if isinstance(answer, DiffusionADError)] == []
    inspections = [answer for answer in answers if isinstance(answer, Inspection)]
    assert list(dict.fromkeys(i.version for i in inspections)) == ["2", "3", "4"]
    assert inspections[-1].version == "2"
    for inspection in inspections[:: len(inspections) // 50]:
        check_inspection(inspection, image)


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("every", [16, pytest.param(3, marks=pytest.mark.long)])
def test_a_server_started_on_what_a_crash_left_serves_a_whole_release(
    scene: Scene,
    check_inspection: Any,
    handmade_model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    every: int,
) -> None:
    """A real start takes seconds: in short, on three states from before and after the switch."""
    (image,) = handmade_model().images(1)
    kills = _kills(scene, "add that prunes", tmp_path, monkeypatch)
    assert len(kills) > 24
    versions = []
    for left in kills[3::every]:
        with (
            running_server(ServerSettings(repository=left.repository)) as server,
            Client(server.grpc_url) as client,
        ):
            inspection = client.inspect(image)
        check_inspection(inspection, image)
        versions.append(inspection.version)
    first, last = versions[0], versions[-1]
    assert first != last
    assert versions == sorted(versions, key=lambda version: version == last)


def _kills(
    scene: Scene, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Remains]:
    """What kills at each write of the change leave, in their order; the finished change last."""
    repository = tmp_path / "changed" / "repository"
    repository.parent.mkdir()
    scene.prepare(change, repository)
    with monkeypatch.context() as patch:
        witness = Witness(patch, repository, tmp_path / "kept")
        scene.change(change, repository)
        witness.look()
    return witness.remains


def content_of(folder: Path) -> str:
    """Digest the names and contents of all that a folder holds; empty if it is not there."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def wait_until_loaded(control: triton.InferenceServerClient, repository: Path) -> None:
    """Wait until a server has exactly the versions that the repository's configurations name."""
    configs = [model_config.read(path) for path in repository.glob("*/config.pbtxt")]
    named = {(c.name, str(v)) for c in configs for v in c.version_policy.specific.versions}
    end = time.monotonic() + 60
    while time.monotonic() < end:
        models = control.get_model_repository_index().models
        if {(m.name, m.version) for m in models if m.state == "READY"} == named:
            return
        time.sleep(0.1)
    raise AssertionError(f"the server does not have {sorted(named)}: {models}")


@contextmanager
def controlled_server(
    monkeypatch: pytest.MonkeyPatch, repository: Path, mode: str
) -> Iterator[str]:
    """A server that reads the repository again: when it is told to, or every `POLL_S`."""
    control = {
        "explicit": ["--model-control-mode=explicit", "--load-model=*"],
        "poll": ["--model-control-mode=poll", f"--repository-poll-secs={POLL_S}"],
    }[mode]
    fixed = TritonProcess._arguments

    def arguments(self: TritonProcess, *args: Any) -> list[str]:
        return [a for a in fixed(self, *args) if "control-mode" not in a] + control

    monkeypatch.setattr(TritonProcess, "_arguments", arguments)
    with running_server(ServerSettings(repository=repository)) as server:
        yield server.grpc_url
