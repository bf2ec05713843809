"""A fleet on one machine: four servers, as units of systemd start them, behind one client.

A line scores all the time, and its client asks every server. Each test leaves all four serving, and
says what it has measured (`pytest -rP`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from ports import free_ports
from service_unit import ServiceUnit
from two_releases import Traffic, fill, traffic
from waiting import wait_for

from diffusionad_client.cli import main
from diffusionad_client.sdk.admin_key import ensure_admin_key

pytestmark = [pytest.mark.server, pytest.mark.long]

SERVERS = 4
MORE = 0.1  # of a share, that a server's may differ from the others'
TAKES_LOAD_S = 10.0
ENOUGH = 800  # answers, to tell shares by
CAMERAS = 4
PAUSE_S = 0.02  # of each: enough calls a second, and something left of two cores to start servers


@dataclass(frozen=True)
class Fleet:
    """Four servers that serve, and a fifth of which the line knows the address."""

    servers: list[ServiceUnit]
    fifth: ServiceUnit
    repository: Path
    key_file: Path

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers]

    def line(self, handmade_model: Any) -> Any:
        """Score from four threads, through one client with its usual retries."""
        urls = [*self.urls, self.fifth.url]
        return traffic(urls, handmade_model, threads=CAMERAS, pause=PAUSE_S, timeout=60)

    def release(self, *arguments: object) -> Result:
        where = ("--repository", self.repository, "--admin-key-file", self.key_file)
        words = ("release", *arguments, *where, "--url", ",".join(self.urls))
        return CliRunner().invoke(main, [*map(str, words)])


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory,
    bundles_in: Any,
    publish_ungated: Any,
    handmade_model: Any,
) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    repository = fill(
        folder / "repository",
        bundles_in(folder / "bundles"),
        publish_ungated,
        handmade_model,
        encoded=False,
    )
    key_file = folder / "admin.key"
    ensure_admin_key(key_file)
    ports = free_ports(2 * (SERVERS + 1))
    units = [
        ServiceUnit(
            name,
            {
                "MODELS": str(repository),
                "GRPC_PORT": str(ports.pop()),
                "METRICS_PORT": str(ports.pop()),
                "SERVE_OPTIONS": "--model-control-mode=explicit --load-model=* "
                f"--admin-key-file={key_file} --model-config-name=default",
            },
            folder,
        )
        for name in "abcde"
    ]
    *four, fifth = units
    with ExitStack() as stack:
        for unit in units:
            stack.callback(unit.close)
        for unit in four:
            unit.begin()
        for unit in four:
            unit.wait_until_started()
        yield Fleet(four, fifth, repository, key_file)


def answers_from(found: Traffic, count: int) -> float:
    """Wait for so many more answers; give the time from which on they came."""
    since, before = time.monotonic(), len(found.answers)
    wait_for(lambda: len(found.answers) >= before + count, 120)
    return since


def shares(found: Traffic, since: float, servers: list[ServiceUnit]) -> dict[str, float]:
    """Give each server's share of the answers, of what it were if all had the same."""
    counts = found.by_server(since)
    even = counts.total() / len(servers)
    return {server.url: counts.pop(server.url, 0) / even for server in servers} | counts


def is_even(each: dict[str, float]) -> bool:
    return all(abs(share - 1) <= MORE for share in each.values())


def seconds_until_it_answers(found: Traffic, server: ServiceUnit, since: float) -> float:
    """Of a server that is ready since then."""
    wait_for(lambda: found.by_server(since)[server.url], TAKES_LOAD_S)
    return min(a.at for a in found.answers if a.server == server.url and a.at >= since) - since


def test_each_server_gets_its_share(fleet: Fleet, handmade_model: Any) -> None:
    with fleet.line(handmade_model) as found:
        since = answers_from(found, ENOUGH)
    each = shares(found, since, fleet.servers)
    print("shares", each)
    assert is_even(each), each
    assert found.wrong == []


def test_a_server_that_leaves_costs_no_call_and_takes_its_share_when_it_is_back(
    fleet: Fleet, handmade_model: Any
) -> None:
    leaves = fleet.servers[0]
    with fleet.line(handmade_model) as found:
        answers_from(found, 200)
        assert leaves.stop() == 0
        gone = time.monotonic()
        answers_from(found, 200)
        leaves.start()
        ready = time.monotonic()
        took = seconds_until_it_answers(found, leaves, ready)
        since = answers_from(found, ENOUGH)
    each = shares(found, since, fleet.servers)
    print("seconds", took)
    print("shares", each)
    print("answers", len(found.answers))
    assert not [a for a in found.answers if a.server == leaves.url and gone < a.at < ready - 1]
    assert is_even(each), each
    assert found.wrong == []


def test_a_fifth_server_takes_its_share(fleet: Fleet, handmade_model: Any) -> None:
    with fleet.line(handmade_model) as found:
        answers_from(found, 200)
        fleet.fifth.start()
        try:
            took = seconds_until_it_answers(found, fleet.fifth, time.monotonic())
            since = answers_from(found, ENOUGH)
            each = shares(found, since, [*fleet.servers, fleet.fifth])
        finally:
            fleet.fifth.stop()
        answers_from(found, 200)
    print("seconds", took)
    print("shares", each)
    print("answers", len(found.answers))
    assert is_even(each), each
    assert found.wrong == []


def test_a_rolling_release_loses_no_call(fleet: Fleet, handmade_model: Any) -> None:
    with fleet.line(handmade_model) as found:
        answers_from(found, 200)
        promoted = fleet.release("promote", "widget", 2, "--json")
        at_two = time.monotonic()
        answers_from(found, 200)
        at_two_still = time.monotonic()
        back = fleet.release("rollback", "widget", "--json")
        answers_from(found, 200)
    print("answers", len(found.answers))
    for said, version in ((promoted, "2"), (back, "1")):
        assert said.exit_code == 0, said.output
        servers = json.loads(said.stdout)["servers"]
        assert [(s["url"], s["version"]) for s in servers] == [(url, version) for url in fleet.urls]
    assert {a.version for a in found.answers if at_two < a.at < at_two_still} == {"2"}
    assert found.answers[-1].version == "1"
    assert found.wrong == []


def test_a_rolling_restart_loses_no_call(fleet: Fleet, handmade_model: Any) -> None:
    before = {server.pid for server in fleet.servers}
    took = []
    with fleet.line(handmade_model) as found:
        answers_from(found, 200)
        for server in fleet.servers:
            assert server.stop() == 0
            server.start()
            took.append(seconds_until_it_answers(found, server, time.monotonic()))
        since = answers_from(found, ENOUGH)
    each = shares(found, since, fleet.servers)
    print("seconds", took)
    print("shares", each)
    print("answers", len(found.answers))
    assert not before & {server.pid for server in fleet.servers}
    assert is_even(each), each
    assert found.wrong == []
