"""Releases on running servers: what a change of the folder does to them, on a real Triton."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from diffusionad_client import contract
from diffusionad_client.admin_key import ensure_admin_key
from diffusionad_client.cli import main
from diffusionad_client.client import Client
from diffusionad_client.contract import Step
from diffusionad_client.errors import AddressError
from diffusionad_client.metadata import Thresholds
from diffusionad_tools.release import model_config
from diffusionad_tools.release.promote import promote
from diffusionad_tools.release.repository import find_release
from diffusionad_tools.release.rollout import Fleet
from diffusionad_tools.server.process import (
    ExplicitControl,
    ServerSettings,
    TritonProcess,
    running_server,
)

GAINS = {"1": 0.5, "2": 0.75}
LIMITS = {"1": Thresholds(accept=0.2, reject=0.3), "2": Thresholds(accept=0.25, reject=0.35)}


def release(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["release", *map(str, arguments)])


def named_by_the_steps(repository: Path) -> set[tuple[int, ...]]:
    paths = [repository / contract.step_model("widget", s) / "config.pbtxt" for s in Step]
    return {tuple(model_config.read(path).version_policy.specific.versions) for path in paths}


@pytest.fixture
def repository(make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path) -> Path:
    """Holds versions 1 and 2 of "widget", and serves 1."""
    return fill(tmp_path / "repository", make_bundle, publish_ungated, handmade_model)


def fill(repository: Path, make_bundle: Any, publish_ungated: Any, handmade_model: Any) -> Path:
    for version, gain in GAINS.items():
        bundle = make_bundle(model=handmade_model(gain=gain), thresholds=LIMITS[version])
        publish_ungated(bundle, repository)
    promote(repository, "widget", 1)
    return repository


def test_steps_serve_the_old_release_too_until_every_server_has_the_new_one(
    repository: Path,
) -> None:
    seen = []

    def not_yet(category: str) -> bool:
        seen.append((category, named_by_the_steps(repository)))
        return False

    promote(repository, "widget", 2, on_switch=not_yet)
    assert named_by_the_steps(repository) == {(1, 2)}

    promote(repository, "widget", 2, on_switch=not_yet)  # again, while one still lags behind
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
    with pytest.raises(AddressError):
        Fleet(urls=["http://line1:8001"], admin_key=None)


@dataclass(frozen=True)
class Plant:
    """Two servers of one repository, and a third of a copy that nobody keeps up to date."""

    repository: Path
    key_file: Path
    servers: tuple[TritonProcess, TritonProcess]
    stale: TritonProcess

    def release(self, *arguments: object) -> Result:
        urls = [o for s in self.servers for o in ("--url", s.grpc_url)]
        key = ("--admin-key-file", self.key_file)
        return release(*arguments, "--repository", self.repository, *urls, *key)


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
    shutil.copytree(repository, folder / "copy")
    key_file = folder / "admin.key"
    explicit = ExplicitControl(load=["widget"], admin_key=ensure_admin_key(key_file))

    def serve(path: Path) -> Any:
        return running_server(ServerSettings(repository=path, explicit=explicit))

    with serve(repository) as one, serve(repository) as other, serve(folder / "copy") as stale:
        yield Plant(repository, key_file, (one, other), stale)


@dataclass
class Traffic:
    """What a line got for its requests: how many answers of each version, and what went wrong."""

    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@contextmanager
def traffic(servers: tuple[TritonProcess, ...], handmade_model: Any) -> Iterator[Traffic]:
    """Score without pause and without retries, two lines a server, while the context lasts."""
    (image,) = handmade_model().images(1)
    expected = {v: handmade_model(gain=gain).answer(image)[0] for v, gain in GAINS.items()}
    found = Traffic()
    over = threading.Event()

    def line(url: str) -> None:
        with Client(url, "widget", retry=False) as client:
            while not over.is_set():
                try:
                    answer = client.inspect(image, anomaly_map=False, reconstruction=False)
                except Exception as exc:  # whatever it is, a part was lost
                    found.wrong.append(repr(exc))
                    continue
                found.answers[answer.version] += 1
                if answer.thresholds != LIMITS[answer.version] or not np.isclose(
                    answer.score, expected[answer.version], atol=1e-5
                ):
                    found.wrong.append(f"an answer of two releases: {answer}")

    lines = [threading.Thread(target=line, args=(s.grpc_url,)) for s in servers for _ in range(2)]
    for thread in lines:
        thread.start()
    try:
        yield found
    finally:
        over.set()
        for thread in lines:
            thread.join()


@pytest.mark.server
def test_no_request_is_lost_while_servers_are_promoted_and_rolled_back(
    plant: Plant, handmade_model: Any
) -> None:
    assert find_release(plant.repository, "widget").version == 1
    with traffic(plant.servers, handmade_model) as found:
        promoted = plant.release("promote", "widget", 2)
        steps_then = named_by_the_steps(plant.repository)
        back = plant.release("rollback", "widget", "--json")

    assert promoted.exit_code == 0, promoted.output
    assert promoted.stdout.count("yes") == 2
    assert steps_then == {(2,)}
    assert back.exit_code == 0, back.output
    told = json.loads(back.stdout)
    assert (told["version"], told["before"]) == (1, 2)
    for server in told["servers"]:
        assert server["agrees"]
        assert (server["version"], server["release"]) == ("1", told["release"])
        assert server["steps"] == {contract.step_model("widget", step): 1 for step in Step}
    assert named_by_the_steps(plant.repository) == {(1,)}

    assert found.wrong == []
    assert set(found.answers) == {"1", "2"}
    assert found.answers.total() > 50


@pytest.mark.server
def test_servers_that_lag_behind_are_named_the_others_are_done_and_the_steps_wait_for_them(
    plant: Plant, dead_url: str
) -> None:
    one, _ = plant.servers
    served = find_release(plant.repository, "widget").version
    target = 3 - served
    urls = [o for url in (dead_url, plant.stale.grpc_url, one.grpc_url) for o in ("--url", url)]
    key = ("--admin-key-file", plant.key_file)
    result = release(
        "promote", "widget", target, "--repository", plant.repository, *urls, *key, "--json"
    )

    assert result.exit_code == 1
    gone, stale, there = json.loads(result.stdout)["servers"]
    assert "no server answers" in gone["problem"]
    assert "a copy that is not up to date?" in stale["problem"]
    assert (there["agrees"], there["version"]) == (True, str(target))
    assert f"2 of 3 servers do not serve widget version {target}" in result.stderr
    assert named_by_the_steps(plant.repository) == {(1, 2)}

    again = plant.release("promote", "widget", target)
    assert again.exit_code == 0, again.output
    lines = again.stdout.splitlines()[-2:]
    expected = [[s.grpc_url, "yes", str(target)] for s in plant.servers]
    assert [line.split()[:3] for line in lines] == expected
    assert named_by_the_steps(plant.repository) == {(target,)}


@pytest.mark.server
def test_a_server_that_does_not_know_the_key_is_told_with_the_remedy(
    plant: Plant, tmp_path: Path
) -> None:
    key_file = tmp_path / "admin.key"
    ensure_admin_key(key_file)
    result = release(
        *("promote", "widget", find_release(plant.repository, "widget").version),
        *("--repository", plant.repository),
        *("--url", plant.servers[0].grpc_url, "--admin-key-file", key_file),
    )
    assert result.exit_code == 1
    assert "its admin key alone; give the file" in result.stdout


@pytest.mark.server
def test_an_added_release_and_new_thresholds_reach_the_servers(
    plant: Plant, make_bundle: Any, handmade_model: Any
) -> None:
    bundle = make_bundle(model=handmade_model(gain=0.6))
    added = plant.release("add", bundle.folder)
    assert added.exit_code == 0, added.output
    changed = plant.release("thresholds", "widget", "--accept", 0.1)
    assert changed.exit_code == 0, changed.output
    for server in plant.servers:
        with Client(server.grpc_url, "widget") as client:
            served = client.served()
        assert served.version == "4"
        assert served.metadata.digests == bundle.metadata.digests
        assert served.metadata.thresholds.accept == 0.1
