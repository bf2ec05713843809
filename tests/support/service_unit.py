"""A server as the unit of tools/deploy/systemd starts it, on machines that systemd does not run.

Read is the unit's file itself. What systemd does with it is done here: the environment file, `%i`,
`$NAME` and `${NAME}` in the command, the socket on which `serve` says that it is ready, SIGTERM for
the first process alone and SIGKILL for what is left. Its walls are systemd's own, and not here.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from diffusionad_tools.server.service_manager import READY, SOCKET_VARIABLE

UNITS = Path(__file__).parents[2] / "tools" / "deploy" / "systemd"
UNIT = UNITS / "diffusionad@.service"
EXAMPLE = UNITS / "example.env"
PROGRAM = "/opt/diffusionad/bin/diffusionad"
START_S = 120.0
_SECONDS = {"s": 1, "min": 60, "h": 3600}


def unit_values(section: str) -> dict[str, list[str]]:
    """Read a section of the unit: each key with its values, in their order."""
    values: dict[str, list[str]] = {}
    here = ""
    for line in re.sub(r"\\\n\s*", "", UNIT.read_text(encoding="utf-8")).splitlines():
        if line.startswith("["):
            here = line.strip("[]")
        elif line and line[0] not in "#;" and here == section:
            key, _, value = line.partition("=")
            values.setdefault(key, []).append(value)
    return values


def example_settings() -> dict[str, str]:
    """Read the example of an environment file, which quotes nothing."""
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and line[0] != "#")


def seconds(key: str) -> float:
    """Read a span of time of the unit's."""
    (value,) = unit_values("Service")[key]
    number, unit = re.fullmatch(r"(\d+) ?([a-z]*)", value).groups()  # type: ignore[union-attr]
    return float(int(number) * _SECONDS[unit or "s"])


class ServiceUnit:
    """One instance, with what its environment file says."""

    def __init__(self, instance: str, settings: Mapping[str, str], folder: Path) -> None:
        service = unit_values("Service")
        (file,) = service["EnvironmentFile"]
        assert "%i" in file
        words = [word for value in service["Environment"] for word in shlex.split(value)]
        self._settings = {**dict(word.split("=", 1) for word in words), **settings}
        (command,) = service["ExecStart"]
        self.command = [
            word
            for template in command.replace("%i", instance).split()
            for word in self._expanded(template)
        ]
        self.url = f"127.0.0.1:{settings['GRPC_PORT']}"
        self.log = folder / f"{instance}.log"
        self._socket = folder / f"{instance}.notify"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of `serve`."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it as `systemctl start` does: until it says that it is ready, or fail."""
        self.begin()
        self.wait_until_started()

    def begin(self) -> None:
        """Start it, and go on."""
        assert self.command[0] == PROGRAM
        self._socket.unlink(missing_ok=True)
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(self._socket))
        self._manager.settimeout(0.2)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "diffusionad_client", *self.command[1:]],
                env={**os.environ, **self._settings, SOCKET_VARIABLE: str(self._socket)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_started(self) -> None:
        """Wait until it says that it is ready."""
        assert self._process is not None
        with self._manager:
            for _ in range(int(START_S / 0.2)):
                assert self._process.poll() is None, self.log.read_text(errors="replace")[-4000:]
                with suppress(TimeoutError):
                    assert self._manager.recv(1024) == READY
                    return
        raise AssertionError(f"not ready within {START_S:g} s: {self.log.read_text()[-4000:]}")

    def stop(self) -> int:
        """Stop it as `systemctl stop` does, and give its exit code."""
        assert unit_values("Service")["KillMode"] == ["mixed"]
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(seconds("TimeoutStopSec"))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """Leave nothing of it."""
        if self._process is not None and self._process.poll() is None:
            self.stop()

    def _expanded(self, word: str) -> list[str]:
        """`$NAME` as a word is as many words as its value has, `${NAME}` one, or part of one."""
        if re.fullmatch(r"\$\w+", word):
            return shlex.split(self._settings.get(word[1:], ""))
        return [re.sub(r"\$\{(\w+)\}", lambda name: self._settings.get(name[1], ""), word)]
