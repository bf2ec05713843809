"""A folder of hostile files: every good image is scored, every bad one says why, nothing hangs."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")

RED = (200, 90, 90)

# Root reads all files, unless it gives that up. None: it cannot here.
SETPRIV = shutil.which("setpriv")
WITHOUT_ROOTS_RIGHTS = SETPRIV and [SETPRIV, "--bounding-set=-dac_override,-dac_read_search"]


def encoded(form: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **more: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, RED).convert(mode).save(file, form, **more)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of 900 million pixels in a kilobyte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000)))


def with_exif(size: int) -> bytes:
    exif = Image.Exif()
    exif[0x9286] = b"x" * size  # a user's comment
    return encoded("JPEG", exif=exif)


def frames(form: str) -> bytes:
    file = io.BytesIO()
    others = [Image.new("RGB", (40, 30), (0, 0, number)) for number in range(3)]
    Image.new("RGB", (40, 30), RED).save(file, form, save_all=True, append_images=others)
    return file.getvalue()


def deep() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(file, "PNG")
    return file.getvalue()


GOOD: dict[str, Callable[[], bytes]] = {
    "plain.png": lambda: encoded("PNG"),
    "cmyk.jpg": lambda: encoded("JPEG", "CMYK"),
    "16-bit.png": deep,
    "animated.gif": lambda: frames("GIF"),
    "animated.webp": lambda: frames("WEBP"),
    "pages.tif": lambda: frames("TIFF"),
    "huge-exif.jpg": lambda: with_exif(60_000),
    "ünïcode-検査.png": lambda: encoded("PNG"),
    "new\nline.png": lambda: encoded("PNG"),
    "=cmd|' 'A1.png": lambda: encoded("PNG"),
    "jpeg-inside.png": lambda: encoded("JPEG"),
    "left/000.png": lambda: encoded("PNG"),
    "right/000.png": lambda: encoded("PNG"),
    "one-pixel.png": lambda: encoded("PNG", size=(1, 1)),
}
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero.png": (lambda: b"", "the file is empty"),
    "text.png": (lambda: b"I am text", "not an image"),
    "torn.jpg": (lambda: encoded("JPEG", size=(400, 300))[:900], "damaged"),
    "torn.png": (lambda: encoded("PNG")[:60], "damaged"),
    "bomb.png": (bomb, "too many pixels"),
    "postscript.png": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "not an image",
    ),
}
SPECIAL = {"pipe.png": "a named pipe", "socket.png": "a socket", "gone.png": "No such file"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "parts"
    for name, make in [*GOOD.items(), *((name, make) for name, (make, _) in BAD.items())]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(make())
    (root / os.fsdecode(b"not-utf8-\xff.png")).write_bytes(encoded("PNG"))
    os.symlink(root, root / "left" / "loop")
    os.symlink(root / "gone", root / "gone.png")
    os.symlink("circle.png", root / "circle.png")
    os.mkfifo(root / "pipe.png")
    monkeypatch.chdir(root)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as there:
        there.bind("socket.png")
    return root


def test_every_good_file_is_scored_and_every_bad_one_says_why(
    triton: Any, folder: Path, tmp_path: Path
) -> None:
    unreadable = {}
    as_others = [] if os.geteuid() else WITHOUT_ROOTS_RIGHTS
    if as_others is not None:
        (folder / "locked.png").write_bytes(encoded("PNG"))
        (folder / "locked.png").chmod(0)
        unreadable = {"locked.png": "Permission denied"}
    command = [*(as_others or []), sys.executable, "-m", "diffusionad_client", "score", str(folder)]
    command += ["--url", triton.url, "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    text = (tmp_path / "out" / "results.jsonl").read_text()
    records = {record["image"]: record for record in map(json.loads, text.splitlines())}
    scored = {name for name, record in records.items() if record["error"] is None}
    assert scored == {*GOOD, os.fsdecode(b"not-utf8-\xff.png")}
    wanted = {name: reason for name, (_, reason) in BAD.items()} | SPECIAL | unreadable
    wanted["circle.png"] = "symbolic links"
    failed = {
        name: record["error"]["message"] for name, record in records.items() if name not in scored
    }
    assert set(failed) == set(wanted)
    for name, reason in wanted.items():
        assert reason in failed[name], name
    table = (tmp_path / "out" / "results.csv").read_bytes()
    assert b"\r\n'=cmd|' 'A1.png," in table
    assert (tmp_path / "out" / "report.html").is_file()
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 3, again.stderr
    assert (tmp_path / "out" / "results.jsonl").read_text() == text
