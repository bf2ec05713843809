"""Nothing hangs on what is no regular file, or does not come: real pipes, sockets and devices."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from diffusionad_client import Client, images, regular_files
from diffusionad_client.errors import DeadlineExceededError, ImageError
from diffusionad_client.sdk.arguments import Decode

unix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\r\n\x00\x1a" * 1000)  # of which text mode would make others
    for timeout in (None, 10.0):
        assert regular_files.read(tmp_path / "a", timeout=timeout) == b"\r\n\x00\x1a" * 1000


@unix
@pytest.mark.parametrize("timeout", [None, 10.0])
def test_a_pipe_is_refused_at_once(tmp_path: Path, timeout: float | None) -> None:
    os.mkfifo(tmp_path / "part.png")
    for source in (tmp_path / "part.png", str(tmp_path / "part.png")):
        with pytest.raises(ImageError, match=r"part\.png: cannot be read: a named pipe"):
            images.load(source, timeout=timeout)
        with pytest.raises(ImageError, match="a named pipe, and only regular files are read"):
            images.read_file(source, timeout=timeout)


@unix
def test_a_pipe_that_takes_a_file_s_place_holds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").touch()
    status = os.stat(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(regular_files.os, "stat", lambda path: status)
    with pytest.raises(OSError, match="a named pipe"):
        regular_files.read(tmp_path / "pipe")


@unix
def test_sockets_and_devices_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may be only so long
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("part.png")
        with pytest.raises(ImageError, match="a socket"):
            images.load("part.png")
    with pytest.raises(ImageError, match="a device"):
        images.load("/dev/zero")


@pytest.mark.parametrize("path", ["", "a\0b.png", "no/such.png"])
def test_a_path_of_nothing_is_an_image_error(path: str) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        images.load(path)


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read: Is a directory"):
        images.load(tmp_path)


@pytest.fixture
def gone_drive(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A network drive that answers no read until the event is set."""
    back = threading.Event()

    def read(path: object) -> bytes:
        back.wait(30)
        return b""

    monkeypatch.setattr(regular_files, "_read", read)
    return back


def test_a_read_that_never_ends_is_given_up(gone_drive: threading.Event) -> None:
    with pytest.raises(DeadlineExceededError, match=r"/nfs/part\.png: not read within 0\.05 s"):
        images.load("/nfs/part.png", timeout=0.05)
    gone_drive.set()


def test_inspect_obeys_its_timeout_though_the_file_is_never_read(
    gone_drive: threading.Event,
) -> None:
    ways: tuple[Decode, ...] = ("client", "server", "auto")
    for how in ways:
        with Client("localhost:1") as client, pytest.raises(DeadlineExceededError):
            client.inspect("/nfs/part.png", model="screw", decode=how, timeout=0.05)
    gone_drive.set()


def test_reads_that_never_end_do_not_take_all_threads(gone_drive: threading.Event) -> None:
    before = threading.active_count()
    for _ in range(regular_files.MOST_READS + 20):
        with pytest.raises(DeadlineExceededError):
            images.load("/nfs/part.png", timeout=0.001)
    assert threading.active_count() - before <= regular_files.MOST_READS
    gone_drive.set()
    deadline = time.monotonic() + 10
    while threading.active_count() > before:  # they end, and there is room for reads again
        assert time.monotonic() < deadline
        time.sleep(0.01)


@unix
def test_ctrl_c_ends_a_read_that_never_ends() -> None:
    program = """
import time
from diffusionad_client import images, regular_files
regular_files._read = lambda path: print("reading", flush=True) or time.sleep(60)
images.load("part.png", timeout=30)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=20)
    assert time.monotonic() - started < 10
    assert b"KeyboardInterrupt" in complaint
