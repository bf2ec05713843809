"""The client runs on Windows and macOS by construction: it names nothing that only POSIX has."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffusionad_client

MODULES = {
    *("fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "select", "selectors"),
    *("syslog", "termios", "tty", "_posixsubprocess"),
}
# What the documentation of these modules gives as "Availability: Unix", of what one may reach for.
NAMES = {
    "os": {
        *("chown", "chroot", "eventfd", "fchmod", "fchown", "fork", "forkpty", "getegid"),
        *("geteuid", "getgid", "getgroups", "getloadavg", "getpgid", "getpgrp", "getsid"),
        *("getuid", "initgroups", "kill", "killpg", "lockf", "mkfifo", "mknod", "nice"),
        *("openpty", "pipe2", "posix_fadvise", "posix_spawn", "pread", "pwrite"),
        *("register_at_fork", "sched_getaffinity", "sched_yield", "sendfile", "setgid"),
        *("setpgid", "setsid", "setuid", "statvfs", "sync", "sysconf", "uname", "wait"),
        *("wait3", "wait4", "waitid", "O_CLOEXEC", "O_DIRECTORY", "O_DSYNC", "O_NOCTTY"),
        *("O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "WNOHANG"),
    },
    "signal": {
        *("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP"),
        *("SIGTSTP", "SIGUSR1", "SIGUSR2", "alarm", "pause", "pthread_kill", "pthread_sigmask"),
        *("setitimer", "sigwait", "siginterrupt"),
    },
    "socket": {"AF_UNIX", "SO_REUSEPORT", "sethostname", "MSG_DONTWAIT"},
    "asyncio": {"open_unix_connection", "start_unix_server", "SafeChildWatcher"},
}
# Asked for before it is used.
GUARDED = {
    ("report/pdf.py", "os.geteuid"),
    ("sdk/transports/forks.py", "os.register_at_fork"),
    ("watching/verdict_commands.py", "os.killpg"),
    ("watching/verdict_commands.py", "signal.SIGKILL"),
}


def only_posix(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module in MODULES:
                yield node.module
            own = NAMES.get(node.module, set())
            yield from (f"{node.module}.{n.name}" for n in node.names if n.name in own)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in NAMES.get(node.value.id, ()):
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.keyword) and node.arg in ("preexec_fn", "pass_fds"):
            yield f"subprocess.Popen({node.arg}=)"


def test_the_client_names_nothing_that_only_posix_has() -> None:
    folder = Path(diffusionad_client.__file__).parent
    files = sorted(folder.rglob("*.py"))
    assert len(files) > 100
    found = {
        (path.relative_to(folder).as_posix(), name)
        for path in files
        for name in only_posix(path.read_text(encoding="utf-8"))
    }
    assert found == GUARDED


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import fcntl", "fcntl"),
        ("from resource import getrusage", "resource"),
        ("from os import fork", "os.fork"),
        ("import signal\nx = signal.SIGKILL", "signal.SIGKILL"),
        ("import subprocess\nsubprocess.Popen([], preexec_fn=print)", "preexec_fn"),
    ],
)
def test_what_only_posix_has_is_seen(source: str, name: str) -> None:
    (found,) = only_posix(source)
    assert name in found
