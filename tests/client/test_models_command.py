"""`diffusionad models`: listing, loading and unloading the categories of a server."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from diffusionad_client import contract
from diffusionad_client.cli import main
from diffusionad_client.errors import ModelNotFoundError
from diffusionad_client.sdk.admin_key import ensure_admin_key
from diffusionad_client.sdk.client import Client


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["models", *map(str, arguments)])


@pytest.fixture
def key_file(triton: Any, tmp_path: Path) -> Path:
    """Close the server's repository; give the key that opens it."""
    triton.admin_key = ensure_admin_key(tmp_path / "admin.key")
    return tmp_path / "admin.key"


def test_models_lists_what_is_served(triton: Any) -> None:
    result = run("--url", triton.url)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split() == [
        *("screw", "READY", "1", "a" * 12, "edge", "fp32", "-", "32", "0.3000", "0.6000")
    ]


def test_models_names_the_region_that_a_category_inspects(
    empty_triton: Any, make_category: Any
) -> None:
    empty_triton.serve(make_category(roi="e" * 64))
    assert f" fp32       {'e' * 12} " in run("--url", empty_triton.url).stdout


def test_models_shows_thresholds_however_long_the_names_are(
    empty_triton: Any, make_category: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = "A" * contract.MAX_CATEGORY_LENGTH
    empty_triton.serve(make_category(name, preset="a-preset-with-a-long-name"))
    line = run("--url", empty_triton.url).stdout.splitlines()[1]
    assert line.startswith(name)
    assert line.split()[-2:] == ["0.3000", "0.6000"]


def test_models_lists_a_category_that_cannot_be_used_with_the_reason(
    triton: Any, make_category: Any
) -> None:
    def break_metadata(config: Any) -> None:
        config.parameters["diffusionad"].string_value = '{"schema_version": 99}'

    triton.serve(make_category("bottle", alter_config=break_metadata))
    plain = run("--url", triton.url)
    assert plain.exit_code == 0
    assert plain.stdout.splitlines()[1].startswith("screw")
    assert "Cannot be used: bottle version 1 on" in plain.stdout
    served, refused = json.loads(run("--url", triton.url, "--json").stdout)
    assert served["model"] == "screw"
    assert refused["model"] == "bottle"
    assert "schema 99" in refused["error"]


def test_models_prints_the_whole_metadata_as_json(triton: Any, make_metadata: Any) -> None:
    (served,) = json.loads(run("--url", triton.url, "--json").stdout)
    assert served["model"] == "screw"
    assert served["metadata"] == json.loads(make_metadata().to_json())


def test_a_category_that_is_not_loaded_is_listed_as_such(triton: Any, make_category: Any) -> None:
    triton.serve(make_category("bottle", loaded=False))
    plain = run("--url", triton.url)
    assert plain.stdout.splitlines()[2].split() == ["bottle", "not", "loaded"]
    _, idle = json.loads(run("--url", triton.url, "--json").stdout)
    assert idle == {"model": "bottle", "state": "NOT_LOADED", "reason": ""}


def test_a_category_that_failed_to_load_is_listed_with_the_reason_of_its_step(
    triton: Any, make_category: Any
) -> None:
    reason = "Internal: odd\n\nAt:\n  /tmp/model.py(249): check\n"
    triton.serve(make_category("bottle", broken=reason))
    result = run("--url", triton.url)
    assert result.stdout.splitlines()[2].split() == ["bottle", "unavailable"]
    assert result.stdout.splitlines()[3] == "bottle: bottle__segmentation: Internal: odd"


def test_a_model_without_steps_that_is_not_loaded_is_none_of_ours(
    triton: Any, make_metadata: Any
) -> None:
    assert "loading" not in run("--url", triton.url).stdout  # which the fake server has


def test_hundreds_of_categories_are_not_asked_for_one_after_the_other(
    triton: Any, make_category: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(95):
        triton.serve(make_category(f"part-{number:03}"))
    four = threading.Barrier(4)  # the fake server answers 16 calls at once

    def wait_for_three_others(call: Any) -> None:
        if call.method == "ModelConfig":
            four.wait(timeout=20)  # breaks, and fails the call, if they do not come

    triton.on_call = wait_for_three_others
    with Client(triton.url) as client:
        found = client.catalogue()
    assert len(found.served) == 96
    assert found.names == sorted(["screw", *(f"part-{number:03}" for number in range(95))])


def test_a_closed_repository_opens_with_the_key_alone(triton: Any, key_file: Path) -> None:
    refused = run("--url", triton.url)
    assert refused.exit_code == 1
    assert "allows this call only with its admin key; give the" in refused.stderr
    assert "--admin-key-file" in refused.stderr
    listed = run("--url", triton.url, "--admin-key-file", key_file)
    assert listed.exit_code == 0
    assert "screw" in listed.stdout


def test_the_key_is_sent_with_no_other_call(
    triton: Any, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []

    def watch(call: Any) -> None:
        seen.append((call.method, triton.admin_key in call.headers.values()))

    triton.on_call = watch
    run("--url", triton.url, "--admin-key-file", key_file)
    assert ("RepositoryIndex", True) in seen
    assert ("ModelConfig", False) in seen
    assert ("ModelConfig", True) not in seen


def test_load_and_unload_say_what_the_server_does_then(
    triton: Any, key_file: Path, make_category: Any
) -> None:
    triton.serve(make_category("bottle", loaded=False))
    server = ("--url", triton.url, "--admin-key-file", key_file)

    loaded = run("load", "bottle", *server)
    assert loaded.exit_code == 0, loaded.output
    assert f"serves bottle version 1, release {'a' * 64}" in loaded.stdout
    assert triton.categories["bottle"].state("bottle") == "READY"

    unloaded = run("unload", "bottle", *server)
    assert unloaded.exit_code == 0, unloaded.output
    assert "no longer serves bottle" in unloaded.stdout
    assert triton.categories["bottle"].state("bottle") == "UNAVAILABLE"


def test_loading_what_is_not_there_says_so(triton: Any, key_file: Path) -> None:
    result = run("load", "bottle", "--url", triton.url, "--admin-key-file", key_file)
    assert result.exit_code == 1
    assert "no such model in the server's repository" in result.stderr


def test_an_option_in_front_of_load_is_refused_rather_than_ignored(triton: Any) -> None:
    result = run("--url", triton.url, "load", "screw")
    assert result.exit_code == 2
    assert "give --url after `models load`" in result.stderr


def test_a_request_for_a_category_that_is_not_loaded_says_that_it_is_there(
    triton: Any, make_category: Any
) -> None:
    triton.serve(make_category("bottle", loaded=False))
    with (
        Client(triton.url, "bottle") as client,
        pytest.raises(ModelNotFoundError, match="in its repository, but does not serve it now"),
    ):
        client.served()


def test_a_closed_repository_asks_for_a_category_instead_of_finding_the_only_one(
    triton: Any, key_file: Path
) -> None:
    with Client(triton.url) as client, pytest.raises(Exception, match="name a category"):
        client.served()
    with Client(triton.url, "screw") as client:
        assert client.served().version == "1"


def test_a_release_that_changes_between_two_calls_is_asked_for_again(
    triton: Any, make_category: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def promote_first(call: Any) -> None:
        if call.method == "ModelConfig" and triton.category.version == "1":
            triton.promote(release="b" * 64)

    triton.on_call = promote_first
    with Client(triton.url, "screw", retry=False) as client:
        assert client.served().version == "2"
