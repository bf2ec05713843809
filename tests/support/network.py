"""A way to a server that can be slow, cut or silent: a TCP proxy on this machine."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

_PIECE = 16 * 1024
_RESET = struct.pack("ii", 1, 0)  # close at once, without a word


class Network:
    """Carries bytes between callers and one server.

    `url` is where it listens. `delay_s` is how long each piece takes in each
    direction, `bytes_per_second` how many get through in each direction of a connection.
    """

    def __init__(self, server: str) -> None:
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
        self.delay_s = 0.0
        self.bytes_per_second: float | None = None
        self.carried = 0
        self._is_cut = False
        self._flows = threading.Event()
        self._flows.set()
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listening.close()
        self.cut()
        self._flows.set()

    def cut(self) -> None:
        """Reset every connection, and each new one, until `mend`."""
        self._is_cut = True
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in ends:
            _reset(end)

    def fall_silent(self) -> None:
        """Carry nothing on, and close nothing, until `mend`."""
        self._flows.clear()

    def mend(self) -> None:
        """Carry everything on again."""
        self._is_cut = False
        self._flows.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                near, _ = self._listening.accept()
                try:
                    if self._is_cut:
                        raise OSError
                    far = socket.create_connection(self._server)
                except OSError:
                    _reset(near)
                    continue
                with self._lock:
                    self._ends |= {near, far}
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE):
                self._flows.wait()
                time.sleep(self.delay_s)
                if self.bytes_per_second is not None:
                    time.sleep(len(piece) / self.bytes_per_second)
                sink.sendall(piece)
                self.carried += len(piece)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        end.shutdown(socket.SHUT_RDWR)
    end.close()
