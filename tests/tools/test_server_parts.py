"""What a server is started from, and what it says when it does not start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from diffusionad_client.errors import ServeError
from diffusionad_tools.server import arguments, binaries, die_with_parent
from diffusionad_tools.server.arguments import Keys
from diffusionad_tools.server.backends import environment
from diffusionad_tools.server.checks import choose_config
from diffusionad_tools.server.ports import choose_port, is_loopback, listen, resolve_host
from diffusionad_tools.server.process import (
    ServerSettings,
    TritonProcess,
    running_server,
    started_server,
)
from diffusionad_tools.server.reasons import failure_reason

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

FAILED_LOG = """\
W1124 03:54:25.464304 4717 pinned_memory_manager.cc:273] "Unable to allocate pinned memory"
E1124 03:54:25.464511 4717 server.cc:241] "CudaDriverHelper has not been initialized."
E1124 03:59:52.81 62 backend.cc:69] "ERROR: Failed to create instance: X\\n\\nAt:\\n  m.py(2)"
E1124 03:59:52.81 62 model_lifecycle.cc:642] "failed to load 'm' version 1: Internal: \
ModelLoadError: input 'x' is odd\\n\\nAt:\\n  /tmp/model.py(249): check_tensor\\n"
I1124 03:59:52.82 62 model_lifecycle.cc:777] "failed to load 'm'"
| m     | 1       | UNAVAILABLE: Internal: ModelLoadError: input 'x' is odd |
error: creating server: Internal - failed to load all models
"""
POLL_LOG = """\
E1124 03:54:56.56 96 model_repository_manager.cc:1460] "Poll failed for model directory 'n': \
failed to open text file for read n/config.pbtxt: No such file or directory"
error: creating server: Internal - failed to load all models
"""


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_every_part_of_the_server_is_found_here() -> None:
    files = binaries.locate()
    assert os.access(files.server, os.X_OK)
    assert files.stub.parent.name == PYTHON
    assert files.libpython.is_file()


def test_a_missing_libpython_says_what_is_missing_where_it_was_looked_for_and_the_remedy(
    tmp_path: Path,
) -> None:
    with pytest.raises(ServeError) as caught:
        binaries.find_libpython([tmp_path / "a", tmp_path / "b"])
    message = str(caught.value)
    assert f"libpython{PYTHON}.so.1.0 is missing" in message
    assert f"{tmp_path / 'a'}, {tmp_path / 'b'}" in message
    assert f"apt-get install libpython{PYTHON}" in message


def test_the_first_folder_that_has_libpython_gives_it(tmp_path: Path) -> None:
    for name in ("b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"libpython{PYTHON}.so.1.0").touch()
    found = binaries.find_libpython([tmp_path / "a", tmp_path / "b", tmp_path / "c"])
    assert found.parent == tmp_path / "b"


def test_without_the_wheel_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ServeError, match=r"nvidia-pytriton.*pip install \./tools"):
        binaries.locate()


def test_the_users_own_libraries_come_last_and_never_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", ":/opt/cuda/lib64:/opt/more:")
    triton = binaries.locate()
    searched = environment(tmp_path, triton)["LD_LIBRARY_PATH"].split(":")
    assert searched == [
        *(str(tmp_path / "lib"), str(triton.libraries)),
        *("/opt/cuda/lib64", "/opt/more"),
    ]


def test_memory_of_tensors_is_kept_for_the_next_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    variables = environment(tmp_path, binaries.locate())
    assert int(variables["MALLOC_MMAP_THRESHOLD_"]) > 8 * 2 * 3 * 256 * 256 * 4  # a whole batch's
    assert variables["MALLOC_TRIM_THRESHOLD_"] == "131072"


def test_a_taken_port_is_named_with_the_way_out(taken_port: int) -> None:
    with pytest.raises(ServeError, match=rf"port {taken_port} .* is taken.*--grpc-port 0"):
        choose_port("127.0.0.1", "grpc", taken_port)


def test_port_0_chooses_one_that_nobody_listens_on() -> None:
    port = choose_port("127.0.0.1", "grpc", 0)
    listen("127.0.0.1", "http", port).close()


def test_one_port_for_two_protocols_is_refused() -> None:
    with listen("127.0.0.1", "http", 0) as http:
        port = http.getsockname()[1]
        with pytest.raises(ServeError, match=f"port {port} .* is taken.*--grpc-port 0"):
            choose_port("127.0.0.1", "grpc", port)


def test_an_address_that_is_not_this_machines_is_refused() -> None:
    with pytest.raises(ServeError, match=r"cannot listen on 192\.0\.2\.1:0"):
        choose_port("192.0.2.1", "grpc", 0)


def test_localhost_is_loopback_and_every_address_is_not() -> None:
    assert is_loopback(resolve_host("localhost"))
    assert not is_loopback(resolve_host("0.0.0.0"))


def test_the_reason_of_a_failed_load_is_one_line_without_stack_or_status() -> None:
    assert failure_reason(FAILED_LOG) == "m version 1: input 'x' is odd"


def test_the_reason_of_an_unreadable_model_folder_names_the_file() -> None:
    reason = "n: failed to open text file for read n/config.pbtxt: No such file or directory"
    assert failure_reason(POLL_LOG) == reason


def test_a_log_without_a_failed_model_gives_the_servers_last_word() -> None:
    log = "I1124 ok\nerror: creating server: Invalid argument - bad flag\n"
    assert failure_reason(log) == "creating server: Invalid argument - bad flag"


def test_a_log_that_gives_no_reason_is_not_made_up() -> None:
    assert failure_reason("I1124 03:54:25 1 server.cc:1] fine\n") is None


def test_of_many_failed_models_the_first_are_named_and_the_rest_counted() -> None:
    line = "E1124 03:59:52.81 62 l.cc:1] \"failed to load '{}' version 1: Internal: bad\"\n"
    reason = failure_reason("".join(line.format(name) for name in "abcde"))
    assert reason == "a version 1: bad; b version 1: bad; c version 1: bad; and 2 more"


def test_a_host_without_a_gpu_takes_the_configuration_for_cpus_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    devices, repository = tmp_path / "dev", tmp_path / "repository"
    (repository / "a_model" / "configs").mkdir(parents=True)
    devices.mkdir()
    assert choose_config(repository, devices) is None  # of before there was one
    (repository / "a_model" / "configs" / "cpu.pbtxt").touch()
    assert choose_config(repository, devices) == "cpu"
    (devices / "nvidia0").touch()
    assert choose_config(repository, devices) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose_config(repository, devices) == "cpu"


def test_a_missing_repository_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="nowhere: no such model repository; `diffusionad release"):
        start(tmp_path / "nowhere")


def test_an_empty_repository_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="no model in it; add one with `diffusionad release add"):
        start(tmp_path)


def test_no_program_is_started_for_a_parent_that_is_already_gone() -> None:
    not_its_parent = "1" if os.getpid() != 1 else "2"
    result = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            die_with_parent.__file__,
            not_its_parent,
            "/bin/echo",
            "started",
        ],
        capture_output=True,
        check=True,
    )
    assert result.stdout == b""


@dataclass
class Held:
    """A fixture that holds a server among other things."""

    line: TritonProcess
    name: str = "line"


@pytest.mark.server
def test_a_test_is_told_that_the_server_of_its_fixtures_died_and_how(
    encoded_repository: Path, what_died: Any
) -> None:
    with started_server(ServerSettings(repository=encoded_repository)) as server:
        assert what_died({"line": server, "plant": Held(server), "path": Path()}) == ""
        with server.log_file.open("a") as log:
            log.write("its last words\n")
        os.kill(server.pid, signal.SIGKILL)
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
        for fixtures in ({"line": server}, {"plant": Held(server)}):
            said = what_died(fixtures)
            assert "Triton stopped: it was killed by signal 9" in said
            assert "its last words" in said


def start(repository: Path) -> None:
    with running_server(ServerSettings(repository=repository)):
        pass


@pytest.mark.parametrize(("host", "closed"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_statistics_are_closed_where_other_machines_reach_them(host: str, closed: bool) -> None:
    options = arguments.restrictions(Keys(), explicit=False, statistics=is_loopback(host))
    assert len(options) == 2  # for gRPC and for HTTP
    assert all(("statistics" in option) is closed for option in options)
    assert all("shared-memory,trace,logging" in option for option in options)
