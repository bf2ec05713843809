"""Ports on which nothing listens, for servers that tests start."""

import socket
from contextlib import ExitStack


def free_ports(count: int) -> list[int]:
    """Find so many, each another. Nobody keeps them: whoever asks next may get them, too."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in taken]


def free_port() -> int:
    """Find one."""
    return free_ports(1)[0]
