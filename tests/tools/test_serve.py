"""`diffusionad serve`, as a command with a real Triton below it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from waiting import wait_for

from diffusionad_client.cli import main
from diffusionad_client.errors import ServeError
from diffusionad_client.local_server import READY_PREFIX
from diffusionad_client.sdk.client import Client
from diffusionad_tools.server import site, supervisor
from diffusionad_tools.server.site import Site

wait_until = partial(wait_for, seconds=20)

SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture
def repository(make_bundle: Any, publish_ungated: Any, tmp_path: Path) -> Path:
    publish_ungated(make_bundle(), tmp_path / "repository")
    return tmp_path / "repository"


def serve(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["serve", *map(str, arguments)])


def shared_memory_prefix(pids: list[int]) -> str:
    """What the names of a server's shared memory begin with, as it was told."""
    lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in pids]
    (prefix,) = re.findall(r"shm-region-prefix-name=([^\0]+)", "\0".join(lines))
    return str(prefix)


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_server_and_leaves_nothing_behind(
    start_serve: Any, repository: Path, is_alive: Any, number: signal.Signals
) -> None:
    command = start_serve(repository, "--verify")
    ready = command.read_line()
    assert ready.startswith(READY_PREFIX)
    with Client(ready.removeprefix(READY_PREFIX).strip()) as client:
        assert client.health().ready
    below = command.descendants()
    assert len(below) == 5  # tritonserver and a stub for each step
    mine = f"{shared_memory_prefix(below)}*"  # other servers may run meanwhile
    assert list(SHARED_MEMORY.glob(mine))

    command.process.send_signal(number)
    code, stderr = command.finish()

    assert code == 0, stderr
    assert "Verified: the graphs of 1 categories are those that were published." in stderr
    assert not any(map(is_alive, below))
    assert not list(SHARED_MEMORY.glob(mine))


@pytest.mark.server
def test_a_signal_while_models_still_load_stops_the_server_too(
    start_serve: Any, repository: Path, is_alive: Any
) -> None:
    command = start_serve(repository)
    wait_until(lambda: len(command.descendants()) > 1)  # tritonserver has begun to start stubs
    below = command.descendants()

    command.process.send_signal(signal.SIGINT)
    code, stderr = command.finish()

    assert code == 0, stderr
    wait_until(lambda: not any(map(is_alive, below)))


@pytest.mark.server
def test_the_end_of_standard_input_stops_the_server_when_asked_to(
    start_serve: Any, repository: Path
) -> None:
    command = start_serve(repository, "--stop-on-stdin-eof")
    assert command.read_line().startswith(READY_PREFIX)
    code, stderr = command.finish()  # closes standard input
    assert code == 0
    assert "Stopping." in stderr


@pytest.mark.server
def test_a_killed_command_takes_the_server_with_it(
    start_serve: Any, repository: Path, is_alive: Any
) -> None:
    command = start_serve(repository)
    assert command.read_line().startswith(READY_PREFIX)
    below = command.descendants()

    command.process.kill()
    command.finish()

    wait_until(lambda: not any(map(is_alive, below)))


@pytest.mark.server
def test_a_server_that_dies_and_is_not_to_be_started_again_ends_the_command_with_an_error(
    start_serve: Any, repository: Path, is_alive: Any
) -> None:
    command = start_serve(repository, "--max-restarts", "0")
    assert command.read_line().startswith(READY_PREFIX)
    below = command.descendants()

    os.kill(below[0], signal.SIGKILL)
    code, stderr = command.finish()

    assert code == 1
    assert "Error: Triton stopped: it was killed by signal 9, perhaps for want of memory" in stderr
    assert "the server has failed once and is not started again (log: " in stderr
    wait_until(lambda: not any(map(is_alive, below)))


@pytest.mark.server
def test_a_model_that_does_not_load_is_reported_with_the_servers_reason_in_one_line(
    start_serve: Any, repository: Path
) -> None:
    config = repository / "widget__segmentation" / "config.pbtxt"
    config.write_text(config.read_text().replace("dims: 1\n", "dims: 2\n"))

    command = start_serve(repository)
    code, stderr = command.finish()

    assert code == 1
    assert "Traceback" not in stderr
    (error,) = (line for line in stderr.splitlines() if line.startswith("Error"))
    assert "widget__segmentation version 1: output 'SCORE' has shape [-1, 2]" in error
    assert "but [-1, 1] in the graph" in error


@pytest.mark.server
def test_a_log_file_of_ones_own_gets_tritons_log(
    start_serve: Any, repository: Path, tmp_path: Path
) -> None:
    command = start_serve(repository, "--log-file", tmp_path / "logs" / "mine.log")
    assert command.read_line().startswith(READY_PREFIX)
    assert "Started GRPCInferenceService" in (tmp_path / "logs" / "mine.log").read_text()
    command.process.send_signal(signal.SIGTERM)
    assert "mine.log" in command.finish()[1]


@pytest.mark.server
def test_a_server_that_takes_too_long_is_stopped(start_serve: Any, repository: Path) -> None:
    command = start_serve(repository, "--ready-timeout", "0.01")
    code, stderr = command.finish()
    assert code == 1
    assert "not ready after 0.01 s; allow more with --ready-timeout" in stderr


@pytest.mark.server
def test_a_configuration_for_a_gpu_fails_without_one_rather_than_run_on_the_cpu(
    start_serve: Any, repository: Path
) -> None:
    command = start_serve(repository, "--model-config-name", "cuda")
    code, stderr = command.finish()
    assert code == 1
    assert "KIND_GPU but no GPUs are available" in stderr


@pytest.mark.server
def test_the_configuration_for_cpu_hosts_runs_an_instance_of_the_networks_for_each_core(
    start_serve: Any, make_bundle: Any, publish_ungated: Any, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    publish_ungated(make_bundle(), repository, cores=3)
    command = start_serve(repository, "--model-config-name", "cpu")
    assert command.read_line().startswith(READY_PREFIX)
    assert len(command.descendants()) == 1 + 3 + 1 + 3 + 1  # Triton, four steps


def test_a_configuration_that_no_model_has_is_refused_with_those_that_there_are(
    repository: Path,
) -> None:
    result = serve("--repository", repository, "--model-config-name", "h100")
    assert result.exit_code == 1
    assert "no model has a configuration named 'h100'" in result.stderr
    assert "there are: cpu, cuda, gpu" in result.stderr


def test_a_temporary_folder_that_triton_cannot_start_from_is_named(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "my files"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    result = serve("--repository", repository, "--grpc-port", 0, "--metrics-port", 0)
    assert result.exit_code == 1
    assert "my files" in result.stderr
    assert "set TMPDIR" in result.stderr


class FakeTriton:
    """A server that writes a log and is ready when its time comes, or fails."""

    def __init__(self, log_file: Path, error: ServeError | None) -> None:
        self.log_file = log_file
        self.error = error
        log_file.write_text("all is well")

    def wait_until_ready(self, cancelled: Callable[[], bool]) -> bool:
        if self.error is not None:
            raise self.error
        return False

    def stop(self) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "own", "kept"),
    [
        (None, False, False),
        (None, True, True),
        (ServeError("it failed"), False, True),
    ],
)
def test_a_log_goes_when_all_went_well_unless_it_was_asked_for(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: ServeError | None,
    own: bool,
    kept: bool,
) -> None:
    made: list[Path] = []

    def start(site: Site) -> FakeTriton:
        made.append(site.log.path)
        return FakeTriton(site.log.path, error)

    monkeypatch.setattr(supervisor, "TritonProcess", start)
    options = ("--log-file", tmp_path / "mine.log") if own else ()
    result = serve("--repository", repository, "--grpc-port", 0, "--metrics-port", 0, *options)
    assert result.exit_code == (0 if error is None else 1)
    assert made[0].exists() is kept
    assert str(made[0]) in result.stderr


def test_a_taken_port_is_named_before_triton_starts(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = serve("--repository", repository, "--grpc-port", port, "--metrics-port", 0)
    assert result.exit_code == 1
    assert f"port {port} on 127.0.0.1 is taken" in result.stderr
    assert "--grpc-port 0" in result.stderr


@pytest.mark.server
def test_a_port_that_is_taken_while_models_load_is_named_too(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # after the look at the port
        port = listener.getsockname()[1]
        monkeypatch.setattr(site, "choose_port", lambda *_: port)
        result = serve("--repository", repository, "--metrics-port", 0)
    assert result.exit_code == 1
    assert f"Error: Triton stopped: port {port} on 127.0.0.1 is taken; stop what" in result.stderr
    assert "--grpc-port 0 takes a free one" in result.stderr


@pytest.mark.server
def test_explicit_control_with_nothing_loaded_says_so_and_how_to_load(
    start_serve: Any, repository: Path, tmp_path: Path
) -> None:
    options = ("--model-control-mode", "explicit", "--admin-key-file", str(tmp_path / "key"))
    command = start_serve(repository, *options)
    assert command.read_line().startswith(READY_PREFIX)
    command.process.send_signal(signal.SIGTERM)
    assert "No model is loaded yet: `diffusionad models load NAME`" in command.finish()[1]


def test_explicit_control_under_which_nothing_could_ever_be_loaded_is_refused(
    repository: Path,
) -> None:
    result = serve("--repository", repository, "--model-control-mode", "explicit")
    assert result.exit_code == 2
    assert "give --load-model, --admin-key-file or both" in result.stderr


@pytest.mark.server
def test_too_few_descriptors_are_named_and_not_taken_for_a_port_that_is_taken(
    repository: Path,
) -> None:
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30)); "
    limit += "os.execv(sys.executable, [sys.executable, '-m', 'diffusionad_client', *sys.argv[1:]])"
    command = [sys.executable, "-c", limit, "serve", "--repository", str(repository)]
    command += ["--grpc-port", "0", "--metrics-port", "0", "--model-config-name", "default"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "needs more open files at once than this process may have" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_others_can_reach_needs_unsafe_bind(repository: Path) -> None:
    result = serve("--repository", repository, "--host", "0.0.0.0")
    assert result.exit_code == 1
    assert "0.0.0.0 can be reached from other machines" in result.stderr
    assert "--unsafe-bind" in result.stderr


def test_unsafe_bind_warns(tmp_path: Path) -> None:
    result = serve("--repository", tmp_path / "nowhere", "--host", "0.0.0.0", "--unsafe-bind")
    assert "Warning: 0.0.0.0 can be reached from other machines" in result.stderr


def test_a_changed_graph_is_named_before_anything_starts(repository: Path) -> None:
    graphs = sorted(repository.glob("*__segmentation/1/model.onnx"))
    content = bytearray(graphs[0].read_bytes())
    content[len(content) // 2] ^= 1  # as a failing disk would
    graphs[0].write_bytes(content)
    result = serve("--repository", repository, "--verify")
    assert result.exit_code == 1
    assert "is not as it was published, so it is not served" in result.output
    assert f"{graphs[0]}: not the file that was published: its SHA-256 is another" in result.output
    graphs[0].unlink()
    result = serve("--repository", repository, "--verify")
    assert result.exit_code == 1
    assert f"{graphs[0]}: missing" in result.output


def test_a_configuration_that_cannot_be_read_fails_the_verification_too(repository: Path) -> None:
    (config,) = (
        path for path in repository.glob("*/config.pbtxt") if "__" not in str(path.parent.name)
    )
    config.write_text(config.read_text()[:-40])
    result = serve("--repository", repository, "--verify")
    assert result.exit_code == 1
    assert str(config) in result.output


def test_a_missing_repository_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    result = serve("--repository", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "nowhere: no such model repository" in result.stderr
    assert "Traceback" not in result.output
