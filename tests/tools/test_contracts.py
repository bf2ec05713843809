"""Releases of several contracts in one category: on disk, on running servers, there and back."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.cli import main
from diffusionad_client.contract import NETWORK_STEPS, Priority, Signature, Step
from diffusionad_client.sdk.admin_key import ensure_admin_key
from diffusionad_client.sdk.client import Client
from diffusionad_client.sdk.transports.grpc import GrpcTransport
from diffusionad_tools.release import model_config
from diffusionad_tools.release.procedure import Procedure
from diffusionad_tools.release.promote import promote, rollback
from diffusionad_tools.release.repository import find_release, served_release, versions
from diffusionad_tools.release.validate import validate_category
from diffusionad_tools.server.process import (
    ExplicitControl,
    ServerSettings,
    TritonProcess,
    running_server,
)

GAINS = {"1": 0.5, "2": 0.75, "3": 0.25}  # of the model in each version
LIMITS = Thresholds(accept=0.2, reject=0.3)
PAUSE_S = 0.02  # between a line's requests, or else nothing is left of a machine to load models


def release(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["release", *map(str, arguments)])


@pytest.fixture
def old_and_new(
    make_bundle: Any,
    publish_under: Any,
    publish_ungated: Any,
    handmade_model: Any,
    tmp_path: Path,
) -> Path:
    """A release of contract 1, and one of today's that is served."""
    repository = tmp_path / "repository"
    first = make_bundle(model=handmade_model(gain=GAINS["1"]))
    publish_under(1, first, repository, encoded=True)
    second = make_bundle(model=handmade_model(gain=GAINS["2"]))
    publish_ungated(second, repository, encoded=True)
    return repository


def test_what_is_written_under_contract_1_is_what_was_written_then() -> None:
    """So tests that publish under contract 1 stand for repositories of then."""
    shipped = Path(__file__).parent / "golden" / "contract_1"
    first = find_release(shipped, "demo_plate", 1)
    assert first.metadata.contract == 1
    configs = model_config.ensemble_configs(first.metadata, 1, first.step_versions, 1)
    for config in configs:
        text = (shipped / config.name / "1" / "release.pbtxt").read_text()
        assert model_config.render(config) == text


def test_a_category_goes_to_a_newer_contract_and_back_and_on_again(
    old_and_new: Path, what_triton_would_serve: Any
) -> None:
    first, second = (find_release(old_and_new, "widget", version) for version in (1, 2))
    assert (first.metadata.contract, second.metadata.contract) == (1, 2)
    assert set(second.step_versions) - set(first.step_versions) == {Step.JUDGEMENT}
    for served in (second, first, second):
        promote(old_and_new, "widget", served.version)
        forms = dict.fromkeys(("widget", "widget__encoded"), served.metadata.release)
        assert what_triton_would_serve(old_and_new) == forms
        judgement = old_and_new / "widget__judgement" / "config.pbtxt"
        assert model_config.versions_named(judgement) == {2}  # none would stop a server
    assert rollback(old_and_new, "widget").release.version == 1


def test_new_thresholds_bring_a_release_to_the_newest_contract_without_its_networks(
    make_bundle: Any, publish_under: Any, what_triton_would_serve: Any, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    publish_under(1, make_bundle(), repository)
    networks = networks_of(repository)
    before = find_release(repository, "widget").metadata

    same = release("thresholds", "widget", "--accept", LIMITS.accept, "--repository", repository)

    assert same.exit_code == 0, same.output
    now = find_release(repository, "widget")
    assert (now.version, now.metadata) == (2, dataclasses.replace(before, contract=2))
    assert networks_of(repository) == networks
    assert what_triton_would_serve(repository) == {"widget": before.release}
    again = release("thresholds", "widget", "--accept", LIMITS.accept, "--repository", repository)
    assert "Nothing to change" in again.stdout


def networks_of(repository: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for step in NETWORK_STEPS
        for path in (repository / f"widget__{step.value}").rglob("*")
        if path.is_file()
    }


@dataclass
class Line:
    """What a line without retries got: how many answers of each version, and what went wrong."""

    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@contextmanager
def line(server: TritonProcess, handmade_model: Any) -> Iterator[Line]:
    """Inspect from two threads, all the time, while the context lasts."""
    (image,) = handmade_model().images(1)
    expected = {v: handmade_model(gain=gain).answer(image)[0] for v, gain in GAINS.items()}
    found = Line()
    over = threading.Event()

    def inspect() -> None:
        with Client(server.grpc_url, "widget") as client:
            while not over.is_set():
                try:
                    answer = client.inspect(image, anomaly_map=False, reconstruction=False)
                except Exception as exc:  # whatever it is, a part was lost
                    found.wrong.append(repr(exc))
                    continue
                found.answers[answer.version] += 1
                score = expected[answer.version]
                right = answer.score == pytest.approx(score, abs=1e-5)
                if not right or answer.verdict is not LIMITS.verdict(score):
                    found.wrong.append(f"an answer of two releases: {answer}")
                time.sleep(PAUSE_S)

    threads = [threading.Thread(target=inspect) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextmanager
def line_server(repository: Path, key_file: Path) -> Iterator[TritonProcess]:
    explicit = ExplicitControl(load=["widget"], admin_key=ensure_admin_key(key_file))
    with running_server(ServerSettings(repository=repository, explicit=explicit)) as server:
        yield server


def loaded(server: GrpcTransport) -> set[str]:
    return {entry.model for entry in server.index(timeout=30) if entry.ready}


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for something that a server has begun."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.server
@pytest.mark.slow
def test_no_part_is_lost_while_a_running_server_goes_to_another_contract_and_back(
    old_and_new: Path, handmade_model: Any, tmp_path: Path
) -> None:
    promote(old_and_new, "widget", 1)
    key_file = tmp_path / "admin.key"
    with (
        line_server(old_and_new, key_file) as server,
        line(server, handmade_model) as found,
        closing(GrpcTransport(server.grpc_url, admin_key=key_file.read_text().strip())) as asked,
    ):
        where = ("--repository", old_and_new, "--url", server.grpc_url)
        where += ("--admin-key-file", key_file, "--json")
        for command in (("promote", "widget", 2), ("rollback", "widget")):
            changed = release(*command, *where)
            assert changed.exit_code == 0, changed.output
            (told,) = json.loads(changed.stdout)["servers"]
            agreed = find_release(old_and_new, "widget").metadata.contract
            judges = "widget__judgement" in told["steps"]
            assert (told["agrees"], judges) == (True, agreed == 2)
            eventually(lambda judges=judges: judges == ("widget__judgement" in loaded(asked)))
    assert found.wrong == []
    assert set(found.answers) == {"1", "2"}


@pytest.mark.server
def test_a_server_started_on_an_older_contract_beside_a_newer_one_serves_and_is_valid(
    old_and_new: Path, handmade_model: Any
) -> None:
    promote(old_and_new, "widget", 1)
    checks = validate_category(old_and_new, "widget")
    assert [check for check in checks if not check.passed] == []
    (image,) = handmade_model().images(1)
    settings = ServerSettings(repository=old_and_new)
    with running_server(settings) as server, Client(server.grpc_url, "widget") as client:
        inspection = client.inspect(image)
    assert inspection.score == pytest.approx(
        handmade_model(gain=GAINS["1"]).answer(image)[0], abs=1e-6
    )


@pytest.fixture
def contract_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """A contract of which the two first steps have other tensors, and so other names."""
    real = contract.step_signature

    def step_signature(step: Step, size: int, agreed: int = 2) -> Signature:
        signature = real(step, size)
        if agreed < 3:
            return signature

        def smaller(tensors: tuple[contract.TensorSpec, ...]) -> tuple[contract.TensorSpec, ...]:
            return tuple(
                dataclasses.replace(tensor, dims=(1, 3, size, size))
                if tensor.name == contract.PREDICTED_NOISE
                else tensor
                for tensor in tensors
            )

        return Signature(smaller(signature.inputs), smaller(signature.outputs))

    third = {
        **contract.CONTRACTS[2],
        Step.NOISE_PREDICTION: "noise_prediction_3",
        Step.RECONSTRUCTION: "reconstruction_3",
    }
    monkeypatch.setitem(contract.CONTRACTS, 3, third)
    monkeypatch.setattr(contract, "step_signature", step_signature)


@pytest.fixture
def three_contracts(
    contract_3: None, old_and_new: Path, make_bundle: Any, publish_ungated: Any, handmade_model: Any
) -> Path:
    third = make_bundle(model=handmade_model(gain=GAINS["3"], agreed=3))
    publish_ungated(third, old_and_new, encoded=True)
    return old_and_new


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize(
    "promoted", [(1, 3), pytest.param((3, 2, 3, 1, 3), marks=pytest.mark.long)], ids=len
)
def test_contracts_with_other_tensors_between_steps_lie_side_by_side_on_a_real_server(
    three_contracts: Path,
    handmade_model: Any,
    what_triton_would_serve: Any,
    tmp_path: Path,
    promoted: tuple[int, ...],
) -> None:
    third = find_release(three_contracts, "widget")
    assert third.metadata.contract == 3
    assert sorted(third.pins) == [
        *("widget__judgement", "widget__noise_prediction_3"),
        *("widget__reconstruction_3", "widget__segmentation"),
    ]
    (image,) = handmade_model().images(1)
    key_file = tmp_path / "admin.key"
    with line_server(three_contracts, key_file) as server:
        where = ("--repository", three_contracts, "--url", server.grpc_url)
        where += ("--admin-key-file", key_file)
        for version in promoted:
            changed = release("promote", "widget", version, *where)
            assert changed.exit_code == 0, changed.output
            what_triton_would_serve(three_contracts)
            with closing(GrpcTransport(server.grpc_url)) as transport:
                answer = transport.infer(
                    *("widget", image[None], [contract.SCORE]),
                    priority=Priority.INLINE,
                    timeout=30,
                )
            expected, _, _ = handmade_model(gain=GAINS[str(version)]).answer(image)
            assert answer.version == str(version)
            assert answer.outputs[contract.SCORE].item() == pytest.approx(expected, abs=1e-6)
    checks = validate_category(three_contracts, "widget")  # with a server that loads everything
    assert [check for check in checks if not check.passed] == []


def test_the_steps_of_a_contract_go_with_the_last_release_of_it_unless_a_server_lags_behind(
    three_contracts: Path,
    make_bundle: Any,
    add_ungated: Any,
    handmade_model: Any,
    what_triton_would_serve: Any,
) -> None:
    fourth = make_bundle(model=handmade_model(gain=0.9, agreed=3))
    noted = three_contracts / "widget__noise_prediction" / "notes.txt"
    noted.write_text("ours alone")
    not_yet = Procedure(on_switch=lambda category: False)
    add_ungated(fourth, three_contracts, encoded=True, keep=1, procedure=not_yet)
    assert (three_contracts / "widget__reconstruction").is_dir()

    add_ungated(fourth, three_contracts, encoded=True, keep=1)

    assert not (three_contracts / "widget__reconstruction").exists()
    assert noted.read_text() == "ours alone"
    assert versions(three_contracts / "widget__reconstruction_3") == [4]
    served = served_release(three_contracts, "widget")
    assert served is not None
    assert what_triton_would_serve(three_contracts)["widget"] == served.metadata.release
