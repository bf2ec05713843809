"""Releases on running servers: what a change of the folder does to them, on a real Triton."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from two_releases import GAINS, Traffic, fill, traffic

from diffusionad_client import contract
from diffusionad_client.cli import main
from diffusionad_client.contract import NETWORK_STEPS
from diffusionad_client.sdk.admin_key import ensure_admin_key
from diffusionad_client.sdk.client import Client
from diffusionad_client.sdk.transports.grpc import GrpcTransport
from diffusionad_tools.release import model_config
from diffusionad_tools.release.procedure import Procedure
from diffusionad_tools.release.promote import promote
from diffusionad_tools.release.repository import find_release
from diffusionad_tools.server.process import (
    ExplicitControl,
    ServerSettings,
    TritonProcess,
    running_server,
)


def release(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["release", *map(str, arguments)])


def named_by_the_steps(repository: Path) -> set[tuple[int, ...]]:
    paths = [repository / contract.step_model("widget", s) / "config.pbtxt" for s in NETWORK_STEPS]
    return {tuple(model_config.read(path).version_policy.specific.versions) for path in paths}


@pytest.fixture
def repository(make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path) -> Path:
    """Holds versions 1 and 2 of "widget", and serves 1."""
    return fill(tmp_path / "repository", make_bundle, publish_ungated, handmade_model)


def test_steps_serve_the_old_release_too_until_every_server_has_the_new_one(
    repository: Path,
) -> None:
    seen = []

    def not_yet(category: str) -> bool:
        seen.append((category, named_by_the_steps(repository)))
        return False

    promote(repository, "widget", 2, Procedure(on_switch=not_yet))
    assert named_by_the_steps(repository) == {(1, 2)}

    # Again, while one still lags behind.
    promote(repository, "widget", 2, Procedure(on_switch=not_yet))
    assert seen == [("widget", {(1, 2)})] * 2
    assert named_by_the_steps(repository) == {(1, 2)}

    promote(repository, "widget", 2)
    assert named_by_the_steps(repository) == {(2,)}


def test_an_address_that_cannot_be_dialled_is_refused_before_anything_changes(
    repository: Path,
) -> None:
    result = release("promote", "widget", 2, "--repository", repository, "--url", "line1")
    assert result.exit_code == 1
    assert "'line1' is not a server's address" in result.stderr
    assert named_by_the_steps(repository) == {(1,)}


@dataclass(frozen=True)
class Plant:
    """A server of the repository, and one of a copy that somebody has to keep up to date.

    The distant one does without the encoded form.
    """

    repository: Path
    key_file: Path
    line: TritonProcess
    copy: Path
    distant_line: TritonProcess

    def release(self, *arguments: object, urls: Sequence[str] = ()) -> Result:
        servers = [o for url in urls or [self.line.grpc_url] for o in ("--url", url)]
        where = ("--repository", self.repository, "--admin-key-file", self.key_file)
        return release(*arguments, *where, *servers)


@pytest.fixture(scope="module")
def plant(
    tmp_path_factory: pytest.TempPathFactory,
    bundles_in: Any,
    publish_ungated: Any,
    handmade_model: Any,
) -> Iterator[Plant]:
    folder = tmp_path_factory.mktemp("plant")
    make_bundle = bundles_in(folder / "bundles")
    repository = fill(folder / "repository", make_bundle, publish_ungated, handmade_model)
    copy = shutil.copytree(repository, folder / "copy")
    key_file = folder / "admin.key"
    key = ensure_admin_key(key_file)

    def serve(path: Path, *load: str) -> AbstractContextManager[TritonProcess]:
        explicit = ExplicitControl(load=load, admin_key=key)
        return running_server(ServerSettings(repository=path, explicit=explicit))

    with (
        serve(repository, "widget", "widget__encoded") as line,
        serve(copy, "widget") as distant_line,
    ):
        yield Plant(repository, key_file, line, copy, distant_line)


def line_traffic(server: TritonProcess, handmade_model: Any) -> AbstractContextManager[Traffic]:
    """Four threads without retries, of which one sends files."""
    return traffic([server.grpc_url], handmade_model, threads=4, files=1, retry=False)


@pytest.fixture
def met_by_loads(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What a server was still unloading, for each time that it was told to load the plain form.

    The other form's load comes right after it, and loads no step.
    """
    met = []
    load = GrpcTransport.load

    def look_and_load(self: GrpcTransport, model: str, *, timeout: float) -> None:
        if model == "widget":
            index = self.index(timeout=timeout)
            met.append([f"{e.model} {e.version}" for e in index if e.state == "UNLOADING"])
        load(self, model, timeout=timeout)

    monkeypatch.setattr(GrpcTransport, "load", look_and_load)
    return met


@pytest.mark.server
@pytest.mark.slow
def test_no_request_is_lost_while_a_server_is_promoted_and_rolled_back(
    plant: Plant, handmade_model: Any, met_by_loads: list[list[str]]
) -> None:
    assert find_release(plant.repository, "widget").version == 1
    with line_traffic(plant.line, handmade_model) as found:
        promoted = plant.release("promote", "widget", 2)
        steps_then = named_by_the_steps(plant.repository)
        back = plant.release("rollback", "widget", "--json")

    assert promoted.exit_code == 0, promoted.output
    (row,) = promoted.stdout.splitlines()[2:]
    assert row.split()[:3] == [plant.line.grpc_url, "yes", "2"]
    assert steps_then == {(2,)}
    assert back.exit_code == 0, back.output
    told = json.loads(back.stdout)
    assert (told["version"], told["before"]) == (1, 2)
    (server,) = told["servers"]
    assert server["agrees"]
    assert (server["version"], server["release"]) == ("1", told["release"])
    assert server["steps"] == {contract.step_model("widget", step): 1 for step in contract.Step}
    with closing(GrpcTransport(plant.line.grpc_url)) as server_of_files:
        assert server_of_files.versions("widget__encoded", timeout=30) == ["1"]
    assert named_by_the_steps(plant.repository) == {(1,)}

    # Twice a change. A load that meets an unload can kill Triton.
    assert met_by_loads == [[]] * 4

    assert found.wrong == []
    assert set(found.by_release()) == {(v, encoded) for v in GAINS for encoded in (False, True)}
    assert len(found.answers) > 50


@pytest.mark.server
@pytest.mark.slow
def test_servers_that_lag_behind_are_named_the_others_are_done_and_the_steps_wait_for_them(
    plant: Plant, dead_url: str
) -> None:
    served = find_release(plant.repository, "widget").version
    target = 3 - served
    both = [plant.line.grpc_url, plant.distant_line.grpc_url]
    result = plant.release("promote", "widget", target, "--json", urls=[dead_url, *both])

    assert result.exit_code == 1
    gone, there, stale = json.loads(result.stdout)["servers"]
    assert "no server answers" in gone["problem"]
    assert (there["agrees"], there["version"]) == (True, str(target))
    assert stale["version"] == str(served)
    assert "a copy that is not up to date?" in stale["problem"]
    assert f"2 of 3 servers do not serve widget version {target}" in result.stderr
    assert named_by_the_steps(plant.repository) == {(1, 2)}

    shutil.copytree(plant.repository, plant.copy, dirs_exist_ok=True)
    again = plant.release("promote", "widget", target, urls=both)
    assert again.exit_code == 0, again.output
    rows = [row.split()[:3] for row in again.stdout.splitlines()[-2:]]
    assert rows == [[url, "yes", str(target)] for url in both]
    assert named_by_the_steps(plant.repository) == {(target,)}


@pytest.mark.server
def test_a_server_that_does_not_know_the_key_is_told_with_the_remedy(
    plant: Plant, tmp_path: Path
) -> None:
    key_file = tmp_path / "admin.key"
    ensure_admin_key(key_file)
    served = find_release(plant.repository, "widget").version
    arguments = ("promote", "widget", served, "--repository", plant.repository)
    result = release(*arguments, "--url", plant.line.grpc_url, "--admin-key-file", key_file)
    assert result.exit_code == 1
    assert "allows this call only with its admin key; give the" in result.stdout


@pytest.mark.server
@pytest.mark.slow
def test_an_added_release_and_new_thresholds_reach_the_server(
    plant: Plant, make_bundle: Any, handmade_model: Any
) -> None:
    bundle = make_bundle(model=handmade_model(gain=0.6))
    added = plant.release("add", bundle.folder)
    assert added.exit_code == 0, added.output
    changed = plant.release("thresholds", "widget", "--accept", 0.1)
    assert changed.exit_code == 0, changed.output
    with Client(plant.line.grpc_url, "widget") as client:
        served = client.served()
    assert served.version == "4"
    assert served.metadata.digests == bundle.metadata.digests
    assert served.metadata.thresholds.accept == 0.1


@pytest.mark.server
@pytest.mark.long
def test_a_server_outlives_changes_that_follow_each_other_without_pause(
    plant: Plant, handmade_model: Any, met_by_loads: list[list[str]]
) -> None:
    back = plant.release("promote", "widget", 1)
    assert back.exit_code == 0, back.output
    with line_traffic(plant.line, handmade_model) as found:
        for version in (2, 1) * 6:
            changed = plant.release("promote", "widget", version)
            assert changed.exit_code == 0, changed.output
    assert not any(met_by_loads)
    assert found.wrong == []
