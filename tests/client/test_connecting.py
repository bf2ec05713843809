"""The options and variables that say how commands reach their servers."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from diffusionad_client.cli import COMMANDS, main
from diffusionad_client.commands.server import ServerChoice, model_option, reaches_server

SECRET = "s3cret-of-the-line"
ALL = ("URL", "MODEL", "TIMEOUT", "TOKEN_FILE", "CA_CERT", "CLIENT_CERT", "CLIENT_KEY",
       "ADMIN_KEY_FILE")  # fmt: skip


@click.command()
@reaches_server(repository=True)
@model_option
def command(server: ServerChoice, model: str | None) -> None:
    reach = server.reach
    shown = {
        "servers": server.servers,
        "timeout": server.timeout,
        "model": model,
        **{name: getattr(reach, name) for name in ("tls", "insecure", "header", "header_file")},
        **{name: getattr(reach, name) for name in ("ca_cert", "client_cert", "client_key")},
        **{name: getattr(reach, name) for name in ("token_file", "admin_key_file")},
        "repository": server.repository,
        "is_flagged": server.is_flagged,
    }
    click.echo(json.dumps(shown, default=str))


def seen(*arguments: str, **environment: str) -> dict[str, Any]:
    variables = {f"DIFFUSIONAD_{name}": environment.get(name, "") for name in ALL}
    result = CliRunner().invoke(command, arguments, env=variables, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.output))


def test_a_flag_goes_before_the_environment_and_that_before_the_default() -> None:
    environment = {
        "URL": "b:2,c:3",
        "MODEL": "nut",
        "TIMEOUT": "7",
        **{name: name.lower() for name in ALL[3:]},
    }
    flags = [f"--{name.lower().replace('_', '-')}=flag" for name in ALL[3:]]
    flags += ["--url", "a:1", "--url", "b:1,a:1", "--model", "screw", "--timeout", "9"]
    default, by_environment = seen(), seen(**environment)
    by_flag = seen(*flags, **environment)

    assert default["servers"] == ["127.0.0.1:8001"]
    assert (default["timeout"], default["model"], default["ca_cert"]) == (30.0, None, None)
    assert by_environment["servers"] == ["b:2", "c:3"]
    assert (by_environment["timeout"], by_environment["model"]) == (7.0, "nut")
    assert not by_environment["is_flagged"]
    assert by_flag["servers"] == ["a:1", "b:1"]
    assert (by_flag["timeout"], by_flag["model"]) == (9.0, "screw")
    for name in ALL[3:]:
        assert by_environment[name.lower()] == name.lower()
        assert by_flag[name.lower()] == "flag"


def test_a_folder_to_serve_goes_before_a_server_of_the_environment() -> None:
    given = seen("--repository", "models", URL="b:2")
    assert given["servers"] == []
    assert given["repository"] == "models"
    result = CliRunner().invoke(command, ["--repository", "models", "--url", "b:2"])
    assert "give --url or --repository, not both" in result.output


def test_headers_come_as_values_or_as_files() -> None:
    given = seen("--header", "X-Line=7=a", "--header-file", "x-key=/run/key", "--insecure")
    assert given["header"] == {"x-line": "7=a"}
    assert given["header_file"] == {"x-key": "/run/key"}
    assert given["insecure"]


@pytest.mark.parametrize(
    "header", [SECRET, f"={SECRET}", "x=", f"x={SECRET}\n--header\nX={SECRET}"]
)
def test_a_header_that_is_not_one_is_refused_and_not_shown(header: str) -> None:
    first, *more = header.split("\n")
    result = CliRunner().invoke(command, ["--header", first, *more])
    assert result.exit_code == 2
    assert "--header" in result.output
    assert SECRET not in result.output


def test_a_server_started_for_the_run_is_reached_in_plain_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import nullcontext

    from diffusionad_client import local_server
    from diffusionad_client.commands.connecting import HowToReach

    monkeypatch.setattr(local_server, "serve_repository", lambda _: nullcontext("127.0.0.1:5"))
    reach = HowToReach(ca_cert=Path("ca.pem"), token_file=Path("token"))
    server = ServerChoice(servers=(), timeout=3, reach=reach, repository=tmp_path)
    with server.open() as connection:
        assert connection.servers == ("127.0.0.1:5",)
        assert connection.timeout == 3
        assert not connection.tls
        assert connection.token_file is None


def health(*arguments: str, **environment: str) -> Result:
    variables = {f"DIFFUSIONAD_{name}": environment.get(name, "") for name in ALL}
    return CliRunner().invoke(main, ["health", *arguments], env=variables)


def test_health_says_which_settings_it_used_and_where_each_came_from(
    triton: Any, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(SECRET)
    token.chmod(0o600)
    arguments = ("--timeout", "20", "--header", f"x-key={SECRET}", "--deep")
    environment = {"URL": triton.url, "TOKEN_FILE": str(token), "MODEL": "screw"}
    plain = health(*arguments, **environment)
    assert plain.exit_code == 0
    assert plain.output.splitlines()[-6:] == [
        "Reached by:",
        f"  url {triton.url} (DIFFUSIONAD_URL)",
        "  timeout 20.0 (--timeout)",
        "  model screw (DIFFUSIONAD_MODEL)",
        f"  token-file {token} (DIFFUSIONAD_TOKEN_FILE)",
        "  header x-key (--header)",
    ]
    document = json.loads(health("--json", *arguments, **environment).output)
    assert document["settings"] == {
        "url": {"value": [triton.url], "from": "DIFFUSIONAD_URL"},
        "timeout": {"value": 20.0, "from": "--timeout"},
        "model": {"value": "screw", "from": "DIFFUSIONAD_MODEL"},
        "token_file": {"value": str(token), "from": "DIFFUSIONAD_TOKEN_FILE"},
        "header": {"value": ["x-key"], "from": "--header"},
    }
    assert SECRET not in plain.output + json.dumps(document)


def test_health_says_of_each_server_how_it_is(triton: Any, dead_url: str) -> None:
    arguments = ("--url", f"{triton.url},{dead_url}")
    plain = health(*arguments)
    assert plain.exit_code == 1
    first, second = plain.stdout.splitlines()[:2]
    assert first == f"{triton.url}: triton 2.51.0, ready"
    assert second.startswith(f"{dead_url}: no server answers")
    document = json.loads(health("--json", *arguments).stdout)
    assert not document["ready"]
    there, gone = document["servers"]
    assert (there["url"], there["ready"], there["error"]) == (triton.url, True, None)
    assert list(there["releases"]) == ["screw"]
    assert (gone["url"], gone["ready"]) == (dead_url, False)
    assert "no server answers" in gone["error"]


def test_health_names_servers_that_do_not_serve_the_same_and_the_remedy(
    two_tritons: tuple[Any, Any], make_category: Any
) -> None:
    one, other = two_tritons
    other.serve(make_category(release="e" * 64))
    result = health("--url", one.url, "--url", other.url)
    assert result.exit_code == 0  # each answer says which release it is of
    (line,) = (line for line in result.stdout.splitlines() if "Not the same" in line)
    assert one.url in line
    assert f"{other.url} serves {'e' * 12}" in line
    assert "release promote" in line


def test_health_says_so_too_where_no_server_answers(dead_url: str) -> None:
    result = health("--url", dead_url)
    assert result.exit_code == 1
    assert f"  url {dead_url} (--url)\n  timeout 30.0 (default)\n" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")


def test_a_model_of_the_environment_does_not_ask_for_more_of_health(triton: Any) -> None:
    assert health("--url", triton.url, MODEL="screw").exit_code == 0
    refused = health("--url", triton.url, "--model", "screw")
    assert "--model goes with --deep" in refused.output


def test_a_token_does_not_leave_the_machine_in_plain_text(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(SECRET)
    token.chmod(0o600)
    result = health("--url", "plant.invalid:8001", "--token-file", str(token))
    assert result.exit_code == 1
    assert "plant.invalid:8001: without TLS" in result.output
    assert "--insecure" in result.output
    assert SECRET not in result.output


def needs_command(name: str) -> None:
    """Skip where the client is alone, as on versions of Python that only it runs on."""
    if name not in {entry.name for entry in entry_points(group=COMMANDS)}:
        pytest.skip(f"`diffusionad {name}` is of a distribution that is not installed")


@pytest.mark.parametrize(
    "arguments",
    [["health"], ["models"], ["models", "load"], ["models", "unload"], ["score"], ["watch"],
     ["release", "compare"], ["evaluate"]],
    ids=" ".join,
)  # fmt: skip
def test_every_command_that_reaches_a_server_takes_the_same_options(arguments: list[str]) -> None:
    needs_command(arguments[0])
    shown = " ".join(CliRunner().invoke(main, [*arguments, "--help"]).output.split())
    for option in ("--url", "--timeout", "--tls", "--insecure", "--header", "--header-file"):
        assert f" {option} " in shown
    for name in ALL:
        if name != "MODEL":
            assert f"DIFFUSIONAD_{name}" in shown
            assert f"--{name.lower().replace('_', '-')} " in shown


@pytest.mark.parametrize("name", ["add", "promote", "rollback", "thresholds"])
def test_changes_of_a_repository_never_take_their_servers_from_the_environment(name: str) -> None:
    needs_command("release")
    shown = CliRunner().invoke(main, ["release", name, "--help"]).output
    assert "DIFFUSIONAD_URL" not in shown
    assert "DIFFUSIONAD_CA_CERT" in shown
    assert "--token-file" in shown
