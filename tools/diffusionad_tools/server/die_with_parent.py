"""Become another program, one that is told to stop when its parent dies.

    python -I -S die_with_parent.py PARENT_PID PROGRAM [ARGUMENT ...]

Run as a script in front of tritonserver, so that a server never outlives the
process that started it, not even one killed with SIGKILL. Linux only: the
kernel sends the signal asked for with prctl(PR_SET_PDEATHSIG), and keeps the
request across exec. It watches the parent's *thread*: whoever starts a server
does so from a thread that lives as long as the server is wanted.

A script rather than `preexec_fn`: that runs Python between fork and exec,
which can deadlock in a process with gRPC's threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main(parent: int, command: list[str]) -> None:
    """Ask for the signal and exec `command`; return only if the parent is already gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() == parent:  # else it died before we asked
        os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
