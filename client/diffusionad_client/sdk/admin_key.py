"""The key that opens a server's model repository: loading, unloading and listing models.

`diffusionad serve --model-control-mode explicit --admin-key-file FILE` closes
those calls to all who do not send it. It lies in a file that only its owner
may read, so that it is on no command line of ours and in no shell's history.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from diffusionad_client.errors import AdminKeyError
from diffusionad_client.files import PART
from diffusionad_client.sdk.secret_files import read_secret

ADMIN_HEADER = "diffusionad-admin-key"
# Triton's own prefix, for gRPC alone, to the name that its option gives a key.
ADMIN_METADATA = f"triton-grpc-protocol-{ADMIN_HEADER}"

_KEY = re.compile(r"[A-Za-z0-9_-]{16,256}")  # Triton splits its option at ':', ',' and '='


def read_admin_key(path: Path) -> str:
    """Read a key. Raises `AdminKeyError` if there is none, or others may read it."""
    try:
        content, open_mode = read_secret(path)
    except OSError as exc:
        raise AdminKeyError(
            f"{path}: the admin key cannot be read: {exc.strerror}; `diffusionad serve "
            "--model-control-mode explicit --admin-key-file` makes the file"
        ) from exc
    if open_mode is not None:
        raise AdminKeyError(
            f"{path}: others than its owner may use this admin key (mode {open_mode:04o}); "
            f"run `chmod 600 {path}`, and make a new key if it was so for long"
        )
    key = content.decode("ascii", errors="replace").strip()
    if not _is_key(key):
        raise AdminKeyError(
            f"{path}: not an admin key: expected 16 to 256 letters, digits, '-' or '_'; remove "
            "the file, and the next server makes a new one"
        )
    return key


def check_admin_key(key: str) -> str:
    """Return `key` if it can be one. Raises `AdminKeyError`, which does not show it."""
    if not isinstance(key, str) or not _is_key(key):
        raise AdminKeyError(
            "an admin key is a text of 16 to 256 letters, digits, '-' or '_', as "
            "`diffusionad serve --model-control-mode explicit --admin-key-file` writes it"
        )
    return key


def _is_key(key: str) -> bool:
    return _KEY.fullmatch(key) is not None


def ensure_admin_key(path: Path) -> str:
    """Read a key, or make one where there is none yet. Raises `AdminKeyError`.

    Of two servers that start at once, both end with the key of one.
    """
    if not path.exists():
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_private(part, secrets.token_urlsafe(32) + "\n")
            try:
                os.link(part, path)  # unlike a rename, this never takes another's place
            except FileExistsError:
                pass
            finally:
                part.unlink()
        except OSError as exc:
            raise AdminKeyError(f"{path}: the admin key cannot be written: {exc.strerror}") from exc
    return read_admin_key(path)


def _write_private(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
