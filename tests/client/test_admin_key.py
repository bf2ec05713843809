"""The file of a server's admin key."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from diffusionad_client.errors import AdminKeyError
from diffusionad_client.sdk.admin_key import ensure_admin_key, read_admin_key
from diffusionad_client.sdk.secret_files import is_open_to_others


def test_a_new_key_is_for_its_owner_only_and_read_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "admin.key"
    before = os.umask(0)
    try:
        key = ensure_admin_key(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(key) >= 32
    assert read_admin_key(path) == ensure_admin_key(path) == key
    assert [p.name for p in path.parent.iterdir()] == ["admin.key"]


def test_two_keys_are_never_the_same(tmp_path: Path) -> None:
    assert ensure_admin_key(tmp_path / "a") != ensure_admin_key(tmp_path / "b")


def test_servers_that_start_at_once_end_with_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(ensure_admin_key, [tmp_path / "admin.key"] * 32))
    assert len(keys) == 1


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "admin.key"
    ensure_admin_key(path)
    path.chmod(0o644)
    with pytest.raises(AdminKeyError, match=r"mode 0644\); run `chmod 600"):
        read_admin_key(path)


@pytest.mark.parametrize(
    ("mode", "owner", "is_open"),
    [
        (0o600, 1000, False),
        (0o400, 1000, False),
        (0o640, 1000, True),
        (0o604, 1000, True),
        (0o440, 0, False),  # as Kubernetes hands a secret to the group of its pod
        (0o640, 0, False),
        (0o660, 0, True),
        (0o644, 0, True),
    ],
)
def test_only_the_owner_reads_a_secret_or_the_group_what_root_owns(
    mode: int, owner: int, is_open: bool
) -> None:
    assert is_open_to_others(mode, owner) is is_open


@pytest.mark.parametrize("text", ["", "short", "a key, with=signs:that split Triton's option"])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "admin.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(AdminKeyError, match="not an admin key"):
        read_admin_key(path)


def test_a_missing_key_says_who_makes_it(tmp_path: Path) -> None:
    with pytest.raises(AdminKeyError, match="serve --model-control-mode explicit"):
        read_admin_key(tmp_path / "admin.key")
