"""What `diffusionad serve` does when a process that serving needs dies or stands still."""

from __future__ import annotations

import io
import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from waiting import wait_for

from diffusionad_client import Client, errors
from diffusionad_client.local_server import READY_PREFIX
from diffusionad_client.sdk.admin_key import ensure_admin_key
from diffusionad_tools.server.supervisor import Restarts

wait_until = partial(wait_for, seconds=30)

IMAGE = np.zeros((32, 32, 3), np.uint8)
DOWN_WITHIN_S = 1.0  # of a death; standing still takes longer to tell


@pytest.fixture
def repository(make_bundle: Any, publish_ungated: Any, tmp_path: Path) -> Path:
    publish_ungated(make_bundle(), tmp_path / "repository")
    return tmp_path / "repository"


def url_of(command: Any) -> str:
    ready = command.read_line()
    assert ready.startswith(READY_PREFIX), command.finish()
    return str(ready.removeprefix(READY_PREFIX).strip())


def process_of(command: Any, named: str) -> int:
    """The first process below `serve` whose command line has `named` in it, Triton's for ""."""
    pid: int
    for pid in command.descendants():
        words = command_line(pid).split("\0")
        is_it = words[0].endswith("tritonserver")
        if named:
            is_it = len(words) > 1 and named in words[1]  # one that ends has no words left
        if is_it:
            return pid
    raise AssertionError(f"no process of {named}")


def is_ready(client: Client) -> bool:
    try:
        return client.health(timeout=1).ready
    except errors.DiffusionADError:
        return False


@pytest.mark.server
@pytest.mark.parametrize(
    ("victim", "number", "noticed_within", "said"),
    [
        pytest.param("widget__noise_prediction", signal.SIGKILL, DOWN_WITHIN_S,
                     "the process of widget__noise_prediction version 1 (process", id="a step",
                     marks=pytest.mark.long),
        pytest.param("image_decoding_32", signal.SIGKILL, DOWN_WITHIN_S,
                     "the process of image_decoding_32 version 1 (process", id="a decoder"),
        pytest.param("", signal.SIGSEGV, 20.0,
                     "was killed by signal 11", id="the server"),
        pytest.param("widget__segmentation", signal.SIGSTOP, 5.0,
                     "has stood still for 3 s", id="a stopped step"),
    ],
)  # fmt: skip
def test_a_server_that_loses_a_process_is_not_ready_until_it_serves_again_at_the_same_address(
    start_serve: Any,
    encoded_repository: Path,
    victim: str,
    number: signal.Signals,
    noticed_within: float,
    said: str,
) -> None:
    command = start_serve(encoded_repository)
    url = url_of(command)
    with Client(url, timeout=30) as client:
        before = client.inspect(IMAGE)
        os.kill(process_of(command, victim), number)
        wait_until(lambda: not is_ready(client), seconds=noticed_within)
        wait_until(lambda: is_ready(client))
        for encoded in (False, True, True, True):  # of two decoders none may be dead
            assert client.inspect(IMAGE).score == before.score
            if encoded:
                assert client.inspect(a_file(), decode="server").score == before.score

    command.process.send_signal(signal.SIGTERM)
    code, stderr = command.finish()
    assert code == 0
    fault, *others = (line for line in stderr.splitlines() if "not ready" in line)
    assert not others, stderr
    assert said in fault
    assert fault.endswith("not ready, starting Triton again now.")
    assert f"Ready again on {url}." in stderr.splitlines()


@pytest.mark.server
def test_a_triton_that_crashes_while_it_starts_is_started_again(
    start_serve: Any, repository: Path
) -> None:
    """As Triton 2.51 itself does, now and then, on a machine that has too much to do."""
    command = start_serve(repository)
    wait_until(lambda: any(command_line(pid).split("\0")[0].endswith("tritonserver")
                           for pid in command.descendants()))  # fmt: skip
    os.kill(process_of(command, ""), signal.SIGABRT)
    with Client(url_of(command), timeout=30) as client:
        assert client.inspect(IMAGE).score >= 0
    command.process.send_signal(signal.SIGTERM)
    code, stderr = command.finish()
    assert code == 0
    assert "killed by signal 6" in stderr
    assert "not ready, starting Triton again now." in stderr


@pytest.mark.server
@pytest.mark.long
def test_a_triton_that_stands_still_is_replaced_and_calls_wait_for_the_next(
    start_serve: Any, repository: Path
) -> None:
    command = start_serve(repository)
    with Client(url_of(command), timeout=60) as client:
        before = client.inspect(IMAGE)
        os.kill(process_of(command, ""), signal.SIGSTOP)
        assert client.inspect(IMAGE).score == before.score
    command.process.send_signal(signal.SIGTERM)
    code, stderr = command.finish()
    assert code == 0
    assert "Triton (process" in stderr
    assert "has stood still for 3 s, stopped by a signal" in stderr


HANGING = """
import os
_execute = TritonPythonModel.execute

def _hang(self, requests):
    while os.path.exists({!r}):
        pass
    return _execute(self, requests)

TritonPythonModel.execute = _hang
"""


@pytest.mark.server
def test_a_model_that_computes_without_end_is_found_by_a_probe(
    start_serve: Any, encoded_repository: Path, tmp_path: Path
) -> None:
    """Its process is at work as any other, and Triton waits for it for ever."""
    hangs = tmp_path / "hangs"
    repository = tmp_path / "repository"
    shutil.copytree(encoded_repository, repository)
    with (repository / "image_decoding_32" / "1" / "model.py").open("a") as code:
        code.write(HANGING.format(str(hangs)))
    command = start_serve(repository, "--probe-every", "1.5")
    with Client(url_of(command), timeout=60) as client:
        before = client.inspect(IMAGE)
        time.sleep(4)  # two probes, of each form
        triton = process_of(command, "")
        hangs.touch()
        wait_until(lambda: not is_ready(client))
        hangs.unlink()
        assert client.inspect(a_file(), decode="server").score == before.score
        assert process_of(command, "") != triton
    command.process.send_signal(signal.SIGTERM)
    code, stderr = command.finish()
    assert code == 0
    (fault,) = (line for line in stderr.splitlines() if "not ready" in line)
    assert fault == (
        "widget__encoded has given no answer to an image for 3 s; not ready, starting Triton again "
        "now."
    )


def a_file() -> bytes:
    file = io.BytesIO()
    Image.fromarray(IMAGE).save(file, "PNG")
    return file.getvalue()


@pytest.mark.server
def test_a_server_that_dies_again_and_again_ends_the_command_with_the_reason(
    start_serve: Any, repository: Path, is_alive: Any
) -> None:
    command = start_serve(repository, "--max-restarts", "1")
    with Client(url_of(command)) as client:
        os.kill(process_of(command, "segmentation"), signal.SIGKILL)
        wait_until(lambda: not is_ready(client))
        wait_until(lambda: is_ready(client))
    below = command.descendants()
    time.sleep(0.2)  # or else it dies before it was seen to be ready
    os.kill(process_of(command, "reconstruction"), signal.SIGKILL)
    code, stderr = command.finish()
    assert code == 1
    error = stderr.splitlines()[-1]
    assert error.startswith("Error: the process of widget__reconstruction version 1 (process")
    assert "was killed by signal 9, perhaps for want of memory" in error
    assert "the server has failed 2 times in 10 minutes and is not started again (log: " in error
    assert not any(map(is_alive, below))


@pytest.mark.server
def test_under_explicit_control_what_was_loaded_is_loaded_again_and_unloading_is_no_fault(
    start_serve: Any, make_bundle: Any, publish_ungated: Any, repository: Path, tmp_path: Path
) -> None:
    for category in ("bolt", "nut"):
        publish_ungated(make_bundle(category=category), repository)
    key_file = tmp_path / "admin.key"
    options = ("--model-control-mode", "explicit", "--admin-key-file", str(key_file))
    command = start_serve(repository, *options, "--load-model", "widget")
    with Client(url_of(command), timeout=30, admin_key=ensure_admin_key(key_file)) as client:
        client.load("bolt")
        client.load("nut")
        client.unload("widget")
        triton = process_of(command, "")
        time.sleep(6)  # the list of what is loaded is asked for every second, less often under load
        assert process_of(command, "") == triton

        config = repository / "nut__segmentation" / "config.pbtxt"
        config.write_text(config.read_text().replace("dims: 1\n", "dims: 2\n"))
        os.kill(process_of(command, "bolt__segmentation"), signal.SIGKILL)
        wait_until(lambda: not is_ready(client), seconds=DOWN_WITHIN_S + 1.5)
        wait_until(lambda: is_ready(client))

        assert client.inspect(IMAGE, model="bolt").model == "bolt"
        served = {model.model for model in client.catalogue().served}
        assert served == {"bolt"}  # what cannot be loaded any more takes no other with it
        client.unload("bolt")  # with its steps: they were not loaded for their own sake
        wait_until(lambda: not [p for p in command.descendants() if "bolt__" in command_line(p)])


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_first_failure_is_answered_at_once_and_each_later_one_after_twice_the_time() -> None:
    restarts = Restarts(most=4)
    assert [restarts.wait_after(float(t)) for t in range(5)] == [0.0, 1.0, 2.0, 4.0, None]


def test_failures_of_long_ago_are_forgotten() -> None:
    restarts = Restarts(most=1, within_s=10.0)
    assert [restarts.wait_after(t) for t in (0.0, 11.0, 12.0)] == [0.0, 0.0, None]
