"""Files of keys, tokens and certificates. What is secret others than its owner may not read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from diffusionad_client import regular_files
from diffusionad_client.errors import CredentialsError

_ROOT = 0


def is_open_to_others(mode: int, owner: int) -> bool:
    """Tell whether a file's mode lets others read the secret that it holds.

    A group may read what root owns: so a container's orchestrator hands its secrets
    to a process that is not root.
    """
    return bool(mode & (0o037 if owner == _ROOT else 0o077))


def read_secret(path: Path) -> tuple[bytes, int | None]:
    """Read a file; also give its mode if it is open to others. Raises `OSError`."""
    with regular_files.open_regular(path) as file:
        status = os.fstat(file.fileno())
        content = file.read()
    mode = stat.S_IMODE(status.st_mode)
    is_open = os.name == "posix" and is_open_to_others(mode, status.st_uid)
    return content, mode if is_open else None


def read_private(path: Path, what: str) -> bytes:
    """Read a file of a secret. Raises `CredentialsError` if others can read it too."""
    try:
        content, open_mode = read_secret(path)
    except OSError as exc:
        raise CredentialsError(f"{path}: {what} cannot be read: {exc.strerror}") from exc
    if open_mode is not None:
        raise CredentialsError(
            f"{path}: others than its owner may read {what} (mode {open_mode:04o}); run "
            f"`chmod 600 {path}`, and have a new one made if it was so for long"
        )
    return content


def read_public(path: Path, what: str) -> bytes:
    """Read a file that is no secret. Raises `CredentialsError`."""
    try:
        return regular_files.read(path)
    except OSError as exc:
        raise CredentialsError(f"{path}: {what} cannot be read: {exc.strerror}") from exc
