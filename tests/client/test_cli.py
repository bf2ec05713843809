from __future__ import annotations

import ast
import importlib.util
import json
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import diffusionad_client
from diffusionad_client import cli, errors

OWN = ["calibrate", "health", "models", "report", "score"]


PACKAGE = diffusionad_client.__name__


def client_modules() -> list[str]:
    found = pkgutil.walk_packages(diffusionad_client.__path__, f"{PACKAGE}.")
    return [PACKAGE, *(m.name for m in found if not m.name.endswith("__main__"))]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, list(arguments), catch_exceptions=False)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    installed = {entry.name: entry for entry in cli.entry_points(group=cli.COMMANDS)}
    monkeypatch.setattr(cli, "_installed", lambda: installed)

    def add(name: str, value: str) -> None:
        installed[name] = EntryPoint(name, value, cli.COMMANDS)

    return add


@pytest.mark.parametrize("command", OWN)
def test_every_command_has_help(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: main")


def test_the_help_names_every_command() -> None:
    listed = run("--help").stdout
    assert all(f"  {command}" in listed for command in OWN)


def test_a_command_that_cannot_be_imported_does_not_hide_the_others(
    install: Callable[[str, str], None],
) -> None:
    install("train", "no_such_package.train:train")
    listed = run("--help")
    assert listed.exit_code == 0
    assert "cannot be loaded: No module named 'no_such_package'" in " ".join(listed.stdout.split())
    assert "  score" in listed.stdout


def test_the_help_loads_no_command() -> None:
    code = (
        "import sys; from diffusionad_client.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print([m for m in sys.modules if '.commands.' in m or m == 'rich'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("columns", ["80", "120"])
def test_no_summary_of_a_command_is_cut(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    listed = run("--help").stdout.partition("Commands:")[2]
    assert "..." not in listed
    assert "the output folder of `diffusionad score`." in " ".join(listed.split())


@pytest.mark.parametrize("arguments", [(), ("--help",), ("data", "--output", "x")])
def test_a_command_that_cannot_be_imported_says_why_when_it_is_run(
    install: Callable[[str, str], None], arguments: tuple[str, ...]
) -> None:
    install("train", "no_such_package.train:train")
    result = run("train", *arguments)
    assert result.exit_code == 1
    assert "No module named 'no_such_package'" in result.stderr


def test_an_entry_point_that_is_no_command_is_told(install: Callable[[str, str], None]) -> None:
    install("train", "diffusionad_client.contract:IMAGE")
    assert "not a click command" in run("train").stderr


def test_a_command_of_a_distribution_that_is_missing_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli, "_installed", dict)
    result = run("serve")
    assert result.exit_code == 2
    assert "diffusionad-tools" in result.stderr
    assert "pip install ./tools" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (errors.ImageError("a.png: the file is empty"), 1, "Error: a.png: the file is empty\n"),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (PermissionError(13, "Permission denied", "/x"), 1, "Error: /x: Permission denied\n"),
    ],
)
def test_what_ends_a_command_is_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    @click.command()
    def fails() -> None:
        raise error

    monkeypatch.setattr(cli.main, "get_command", lambda ctx, name: fails)
    result = run("anything")
    assert result.exit_code == code
    assert message in result.stderr


def test_health_of_a_ready_server_is_exit_code_0(triton: Any) -> None:
    result = run("health", "--url", triton.url)
    assert result.exit_code == 0
    assert "triton 2.51.0, ready" in result.stdout


def test_health_of_a_server_that_is_not_ready_is_exit_code_1(triton: Any) -> None:
    triton.ready = False
    result = run("health", "--url", triton.url, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ready"] is False


def test_health_of_no_server_is_one_message(dead_url: str) -> None:
    result = run("health", "--url", dead_url)
    assert result.exit_code == 1
    assert "no server answers" in result.stderr


def test_every_public_name_exists() -> None:
    for name in diffusionad_client.__all__:
        assert getattr(diffusionad_client, name).__name__ == name


def test_every_error_of_any_module_is_public_and_has_its_home_among_the_errors() -> None:
    for module in client_modules():
        importlib.import_module(module)
    tree = [errors.DiffusionADError]
    for error in tree:
        tree += [sub for sub in error.__subclasses__() if sub.__module__.startswith(PACKAGE)]
    assert {error.__module__ for error in tree} == {errors.__name__}
    assert {error.__name__ for error in tree} <= set(diffusionad_client.__all__)


@pytest.mark.parametrize("module", client_modules())
def test_every_module_is_in_the_grammar_of_the_oldest_python(module: str) -> None:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    ast.parse(Path(spec.origin).read_text(encoding="utf-8"), module, feature_version=(3, 10))


def test_every_error_stands_in_the_tree_of_the_documentation() -> None:
    for name in vars(errors):
        if name.endswith("Error"):
            assert name in str(errors.__doc__)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Detector'"):
        _ = diffusionad_client.Detector


def test_starting_the_command_imports_nothing_heavy() -> None:
    code = (
        "import sys, diffusionad_client.cli, diffusionad_client.commands.score;"
        "print([m for m in ('numpy', 'PIL', 'grpc', 'tritonclient', 'rich', 'jinja2', 'torch')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_python_m_runs_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "diffusionad_client", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"diffusionad, version {diffusionad_client.__version__}"


@pytest.mark.parametrize("command", ["health", "models"])
def test_an_empty_url_is_not_taken_for_the_default(command: str) -> None:
    result = run(command, "--url", "")
    assert result.exit_code == 1
    assert "'' is not a server's address" in result.stderr
