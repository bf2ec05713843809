"""Files that hold a secret: keys and tokens. Others than their owner may not read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from diffusionad_client import regular_files

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
