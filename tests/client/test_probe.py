"""What a server says of itself is not enough: an image is sent through."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from diffusionad_client import Client, ModelLoadError, ServerBusyError
from diffusionad_client.cli import main
from diffusionad_client.testing import Fault


def health(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["health", *arguments])


def test_every_category_is_sent_an_image(triton: Any, make_category: Any) -> None:
    triton.serve(make_category("bottle"))
    result = health("--url", triton.url, "--deep")
    assert result.exit_code == 0, result.output
    assert "bottle: answers in" in result.output
    assert "screw: answers in" in result.output
    assert {request.model for request in triton.requests} == {"bottle", "screw"}


def test_a_dead_process_fails_the_deep_check_alone(triton: Any) -> None:
    triton.fail(Fault.PROCESS_DEAD)
    assert health("--url", triton.url).exit_code == 0
    result = health("--url", triton.url, "--deep")
    assert result.exit_code == 1
    assert "screw: does not answer" in result.output
    assert "is not healthy" in result.output


def test_one_of_several_processes_that_is_dead_fails_the_deep_check(triton: Any) -> None:
    turns = iter(range(100))

    def every_second_fails(call: Any) -> None:
        if call.method == "ModelInfer" and next(turns) % 2:
            triton.fail(Fault.PROCESS_DEAD, times=1)

    triton.on_call = every_second_fails
    assert health("--url", triton.url, "--deep").exit_code == 1


def test_a_full_queue_is_an_answer_only_to_a_probe_that_allows_it(triton: Any) -> None:
    asked = ("--url", triton.url, "--deep")
    triton.fail(Fault.QUEUE_FULL)
    assert health(*asked).exit_code == 1
    assert health(*asked, "--allow-busy").exit_code == 0
    triton.heal()
    triton.fail(Fault.PROCESS_DEAD)
    assert health(*asked, "--allow-busy").exit_code == 1
    assert "--allow-busy goes with --deep" in health("--url", triton.url, "--allow-busy").output


def test_the_deep_check_tells_a_program_of_each_category(triton: Any, make_metadata: Any) -> None:
    result = health("--url", triton.url, "--deep", "--json")
    (probe,) = json.loads(result.output)["probes"]
    assert probe.pop("seconds") > 0
    assert probe == {
        "server": triton.url,
        "model": "screw",
        "answers": True,
        "version": "1",
        "release": "a" * 64,
        "error": None,
    }
    triton.fail(Fault.PROCESS_DEAD)
    (probe,) = json.loads(health("--url", triton.url, "--deep", "--json").output)["probes"]
    assert not probe["answers"]
    assert "not healthy" in probe["error"]


def test_a_named_category_needs_no_list(triton: Any) -> None:
    triton.fail(Fault.RESTRICTED, "RepositoryIndex")
    assert health("--url", triton.url, "--deep", "--model", "screw").exit_code == 0
    assert health("--url", triton.url, "--deep", "--model", "nut").exit_code == 1
    assert health("--url", triton.url, "--deep").exit_code == 1


def test_a_category_that_could_not_be_loaded_fails_the_deep_check(
    triton: Any, make_category: Any
) -> None:
    triton.serve(make_category("bottle", loaded=False))
    assert health("--url", triton.url, "--deep").exit_code == 0  # nobody asked for it
    triton.categories["bottle"].broken = "out of memory"
    result = health("--url", triton.url, "--deep")
    assert result.exit_code == 1
    assert "bottle: does not answer" in result.output
    assert "out of memory" in result.output


def test_a_server_that_serves_nothing_fails_the_deep_check(empty_triton: Any) -> None:
    result = health("--url", empty_triton.url, "--deep")
    assert result.exit_code == 1
    assert "no category" in result.output


def test_a_model_goes_with_the_deep_check_only(triton: Any) -> None:
    assert health("--url", triton.url, "--model", "screw").exit_code == 2


def test_a_load_that_cures_nothing_is_no_success(triton: Any, make_category: Any) -> None:
    triton.serve(make_category("screw", loaded=False))
    triton.fail(Fault.PROCESS_DEAD)
    with Client(triton.url) as client, pytest.raises(ModelLoadError, match="is not healthy"):
        client.load("screw")
    result = CliRunner().invoke(main, ["models", "load", "screw", "--url", triton.url])
    assert result.exit_code == 1
    assert "does not answer" in result.output
    assert "serves screw version" not in result.output


def test_a_busy_server_has_loaded_what_it_was_asked_to(triton: Any, make_category: Any) -> None:
    triton.serve(make_category("screw", loaded=False))
    triton.fail(Fault.QUEUE_FULL)
    with Client(triton.url) as client:
        assert client.load("screw").version == "1"
        (probe,) = client.probe("screw")
    assert isinstance(probe.error, ServerBusyError)
