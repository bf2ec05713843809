from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from diffusionad_client import local_server
from diffusionad_client.errors import ServeError, ServerUnavailableError
from diffusionad_client.local_server import READY_PREFIX, serve_repository

Script = Callable[[str], None]


@pytest.fixture
def server_script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Let a few lines of Python stand in for `diffusionad serve`."""

    def use(code: str) -> None:
        full = f"import sys, time\nREADY = {READY_PREFIX!r}\n" + textwrap.dedent(code)
        command = [sys.executable, "-c", full]
        monkeypatch.setattr(local_server, "serve_command", lambda repository, startup_s: command)

    return use


def test_the_address_is_read_and_closing_standard_input_stops_the_server(
    server_script: Script, tmp_path: Path
) -> None:
    stopped = tmp_path / "stopped"
    server_script(
        f"""
        print("loading")
        print(READY + "127.0.0.1:4711", flush=True)
        sys.stdin.read()
        open({str(stopped)!r}, "w").close()
        """
    )
    with serve_repository(tmp_path) as url:
        assert url == "127.0.0.1:4711"
        assert not stopped.exists()
    assert stopped.exists()


def test_a_server_that_does_not_start_gives_its_last_words(
    server_script: Script, tmp_path: Path
) -> None:
    server_script("sys.exit('Error: port 8001 is taken; choose another with --grpc-port')")
    with pytest.raises(ServeError, match=r"\(exit code 1\): port 8001 is taken") as caught:
        serve_repository(tmp_path).__enter__()
    assert "Traceback" not in str(caught.value)


def test_only_the_end_of_a_long_log_is_shown(server_script: Script, tmp_path: Path) -> None:
    server_script(
        """
        for i in range(200): print("line", i, file=sys.stderr)
        sys.exit(2)
        """
    )
    with pytest.raises(ServeError, match="line 199") as caught:
        serve_repository(tmp_path).__enter__()
    assert "line 100" not in str(caught.value)


def test_a_server_that_is_never_ready_is_stopped(server_script: Script, tmp_path: Path) -> None:
    server_script("time.sleep(60)")
    started = time.monotonic()
    with pytest.raises(ServeError, match=r"not ready after 0\.5 s"):
        serve_repository(tmp_path, startup_s=0.5, grace_s=0.2).__enter__()
    assert time.monotonic() - started < 20


def test_a_server_that_ignores_the_end_of_input_is_terminated(
    server_script: Script, tmp_path: Path
) -> None:
    server_script('print(READY + "a:1", flush=True); time.sleep(60)')
    started = time.monotonic()
    with serve_repository(tmp_path, grace_s=0.2):
        pass
    assert time.monotonic() - started < 20


def test_a_server_that_talks_on_does_not_block(server_script: Script, tmp_path: Path) -> None:
    server_script(
        """
        print(READY + "a:1", flush=True)
        print("x" * 1_000_000, flush=True)
        sys.stdin.read()
        """
    )
    started = time.monotonic()
    with serve_repository(tmp_path, grace_s=10):
        pass
    assert time.monotonic() - started < 9


def test_a_server_that_dies_during_the_run_is_told_apart_from_one_elsewhere(
    server_script: Script, tmp_path: Path
) -> None:
    server_script(
        """
        print(READY + "a:1", flush=True)
        sys.exit("Error: out of memory")
        """
    )

    def score() -> None:
        with serve_repository(tmp_path):
            time.sleep(0.5)
            raise ServerUnavailableError("a:1: no server answers; stopped: 7 of 9 were scored")

    with pytest.raises(ServeError, match=r"stopped during the run.*out of memory") as caught:
        score()
    assert "7 of 9 were scored" in str(caught.value)


def test_the_command_runs_in_this_environment_and_takes_free_ports(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(local_server, "entry_points", lambda **_: ["the tools are installed"])
    command = local_server.serve_command(tmp_path)
    assert command[:4] == [sys.executable, "-m", "diffusionad_client", "serve"]
    assert command.count("0") == 2
    assert command[-1] == "--stop-on-stdin-eof"


def test_without_the_tools_the_error_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(local_server, "entry_points", lambda **_: [])
    with pytest.raises(ServeError, match=r"diffusionad-tools.*pip install \./tools"):
        local_server.serve_command(tmp_path)
