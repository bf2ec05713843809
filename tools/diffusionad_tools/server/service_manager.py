"""Tell the service manager that started a server when it serves, in the words of sd_notify(3).

A unit of `Type=notify` has started when it has said so. Whoever starts several
servers anew, one after the other, so waits for each without asking anybody.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

SOCKET_VARIABLE = "NOTIFY_SOCKET"
READY = b"READY=1"


def tell_ready() -> None:
    """Tell the service manager, if there is one, that the server is ready.

    One that cannot be told is no reason not to serve: it ends the server when its patience does.
    """
    address = os.environ.get(SOCKET_VARIABLE)
    if not address:
        return
    if address.startswith("@"):  # one of Linux's abstract names
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(READY, address)
