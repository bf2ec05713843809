"""Watches for tests, in a thread or in a process of their own, and what they write."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from waiting import wait_for

from diffusionad_client.commands.watch_log import WatchLog
from diffusionad_client.scoring.drawing import Heatmaps
from diffusionad_client.scoring.results import RunSummary
from diffusionad_client.scoring.settings import Settings
from diffusionad_client.sdk.connection import Connection
from diffusionad_client.watching.aftermath import Consequences
from diffusionad_client.watching.run import WatchPlan, watch_folder

WANTED = ("sorting", "commands", "command_timeout", "jobs")


class Seen:
    """A folder `in` that is watched, beside the results `out`."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "in"
        self.output = place / "out"
        self.folder.mkdir(parents=True, exist_ok=True)

    def said(self) -> str:
        """What the watch said so far."""
        raise NotImplementedError

    def records(self) -> list[dict[str, Any]]:
        path = self.output / "results.jsonl"
        if not path.exists():
            return []
        lines = path.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def images(self) -> list[str]:
        return sorted(record["image"] for record in self.records())

    def wait_for_images(self, *names: str, seconds: float = 15) -> None:
        try:
            wait_for(lambda: self.images() == sorted(names), seconds)
        except AssertionError:
            raise AssertionError(f"{self.images()}\n{self.said()}") from None


class WatchedHere(Seen):
    """A watch in a thread of this process."""

    def __init__(
        self,
        place: Path,
        url: str,
        *,
        timeout: float = 30.0,
        settle_s: float = 0.1,
        poll_s: float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(place)
        wanted = Consequences(**{name: settings.pop(name) for name in WANTED if name in settings})
        self._lines: list[str] = []
        self._stop = threading.Event()
        plan = WatchPlan(folder=self.folder, settle_s=settle_s, poll_s=poll_s, wanted=wanted)
        chosen = Settings(output=self.output, heatmaps=Heatmaps.NONE, patience=math.inf, **settings)
        log = WatchLog(as_json=True, write=self._lines.append)
        self._result: Future[RunSummary] = Future()

        def run() -> None:
            try:
                connection = Connection(url, timeout=timeout)
                self._result.set_result(watch_folder(connection, plan, chosen, log, self._stop))
            except BaseException as exc:
                self._result.set_exception(exc)

        threading.Thread(target=run, daemon=True).start()
        wait_for(lambda: self._lines or self._result.done())

    def said(self) -> str:
        return "\n".join(self._lines)

    def stop(self) -> RunSummary:
        """Stop, and give what was done, or raise what ended the watch."""
        self._stop.set()
        return self._result.result(30)


class Watched(Seen):
    """`diffusionad watch` in a process of its own."""

    def __init__(self, place: Path, url: str | None, *arguments: object) -> None:
        """`url` None: the arguments say where the server is."""
        super().__init__(place)
        self.log = place / "log"
        self.log.touch()
        self._said_before = len(self.said())  # by an earlier watch in this place
        command = ["watch", self.folder, "--output", self.output]
        command += [] if url is None else ["--url", url]
        options = ["--log-format", "json", "--settle", "0.15", "--heatmaps", "none"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "diffusionad_client"]
                + list(map(str, [*command, *options, *arguments])),
                stderr=log,
                stdout=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until_ready(self, seconds: float = 20) -> None:
        wait_for(lambda: self._begun() or self.process.poll() is not None, seconds)
        assert self.process.poll() is None, self.said()

    def _begun(self) -> bool:
        return '"event": "begins"' in self.said()[self._said_before :]

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)
