from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffusionad_client.files import publish

fcntl = pytest.importorskip("fcntl", reason="only POSIX tells how a file was opened")


def test_a_file_is_synced_through_a_handle_that_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []

    def note_mode(handle: int) -> None:
        modes.append(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE)

    monkeypatch.setattr(os, "fsync", note_mode)  # Windows refuses it for a handle that only reads
    (tmp_path / "rows.part").write_bytes(b"rows")
    publish(tmp_path / "rows.part", tmp_path / "rows")
    assert modes == [os.O_RDWR]
    assert (tmp_path / "rows").read_bytes() == b"rows"
