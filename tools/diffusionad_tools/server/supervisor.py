"""Keep a server up: watch its processes, and start it anew in place of one that has failed.

A stub that has died takes its model with it for good, and Triton goes on
saying ready. So the server is ended at once, whole: nobody answers until
everything answers again, on the same ports. Callers see a server that is gone
for a few seconds, which they know what to do about.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

from diffusionad_client.errors import ServeError
from diffusionad_tools.errors import RepositoryError
from diffusionad_tools.release import model_config
from diffusionad_tools.server import private_line
from diffusionad_tools.server.probing import Probing
from diffusionad_tools.server.process import TritonProcess
from diffusionad_tools.server.site import Site

MAX_RESTARTS = 5
WITHIN_S = 600.0  # who has served longer than this since a failure has it forgotten
_FIRST_WAIT_S = 1.0  # before the second restart, twice as long before each after it
_LOOK_EVERY_S = 0.1
_ASK_S = 1.0  # for the list of loaded models
_SHARE = 0.05  # of the time spent asking for it; Triton reads its repository's folder each time


class Restarts:
    """Decides whether to start a server again, and after how long."""

    def __init__(self, most: int = MAX_RESTARTS, within_s: float = WITHIN_S) -> None:
        self._most = most
        self._within_s = within_s
        self._failures: list[float] = []

    def wait_after(self, failed: float) -> float | None:
        """Seconds to wait after a failure at that time; None if there were too many."""
        recent = [before for before in self._failures if failed - before < self._within_s]
        self._failures = [*recent, failed]
        count = len(self._failures)
        if count > self._most:
            return None
        return 0.0 if count == 1 else _FIRST_WAIT_S * 2 ** (count - 2)

    def spent(self) -> str:
        """Say how often it failed."""
        count = len(self._failures)
        return f"{count} times in {self._within_s / 60:g} minutes" if count > 1 else "once"


class Say(Protocol):
    """Takes a line of progress, and how grave it is: info, warning or error."""

    def __call__(self, text: str, level: str = "info") -> None:
        """Say it."""


class Supervisor:
    """Serves until told to stop. `say` is told, in a line each, what happens meanwhile."""

    def __init__(self, site: Site, restarts: Restarts, say: Say) -> None:
        self._site = site
        self._restarts = restarts
        self._say = say
        self._loaded = LoadedModels(site) if site.settings.explicit is not None else None

    def run(self, stop: threading.Event, ready: Callable[[TritonProcess], None]) -> None:
        """Serve until `stop` is set; call `ready` once, when it first is.

        Raises `ServeError` if the server refuses to come up at first, or has failed too often.
        A crash is no refusal: Triton (2.51) aborts now and then while it starts the processes
        of models on a busy machine, and comes up the next time.
        """
        server = TritonProcess(self._site)
        try:
            try:
                if not server.wait_until_ready(cancelled=stop.is_set):
                    return
            except ServeError as exc:
                if not server.has_crashed:
                    raise
                next_one = self._replace(server, str(exc), stop)
                if next_one is None:
                    return
                server = next_one
            ready(server)
            while (fault := self._serve(server, stop)) is not None:
                next_one = self._replace(server, fault, stop)
                if next_one is None:
                    return
                server = next_one
            self._say("Stopping.")
        finally:
            server.stop()

    def _serve(self, server: TritonProcess, stop: threading.Event) -> str | None:
        """Watch until something is wrong, and say what; None if `stop` came first."""
        every = self._site.settings.probe_every
        with nullcontext() if every is None else Probing(self._site, every) as probing:
            while not stop.wait(_LOOK_EVERY_S):
                if (fault := server.fault()) is not None:
                    return fault
                if probing is not None and (fault := probing.fault()) is not None:
                    return fault
                if self._loaded is not None:
                    self._loaded.look()
        return None

    def _replace(
        self, server: TritonProcess, fault: str, stop: threading.Event
    ) -> TritonProcess | None:
        """End a server that has failed, and start another; None if `stop` came first."""
        server.kill()
        self._site.keep_log = True
        return self._start_again(fault, stop)

    def _start_again(self, fault: str, stop: threading.Event) -> TritonProcess | None:
        """Try until it serves; None if `stop` came first. Raises `ServeError` when it gives up."""
        while True:
            wait = self._restarts.wait_after(time.monotonic())
            if wait is None:
                raise ServeError(
                    f"{fault}; the server has failed {self._restarts.spent()} and is not started "
                    f"again (log: {self._site.log.place})"
                )
            when = f"in {wait:g} s" if wait else "now"
            self._say(f"{fault}; not ready, starting Triton again {when}.", "warning")
            if stop.wait(wait):
                return None
            again = None if self._loaded is None else self._loaded.names()
            server = TritonProcess(self._site, again=again)
            try:
                if server.wait_until_ready(cancelled=stop.is_set):
                    self._say(f"Ready again on {server.grpc_url}.")
                    return server
            except ServeError as exc:
                fault = str(exc)
                server.kill()
            except BaseException:
                server.kill()
                raise
            else:
                server.stop()
                return None


class LoadedModels:
    """Remembers what a server under explicit control has loaded, for the one after it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._ready: set[str] | None = None  # None: never asked with success
        self._next = 0.0

    def look(self) -> None:
        """Ask the server, if the last time is long enough ago; keep what is known if it fails."""
        asked = time.monotonic()
        if asked < self._next:
            return
        site = self._site
        ready = private_line.loaded_models(site.http_socket, site.keys.admin, timeout=_ASK_S)
        if ready is not None:
            self._ready = ready
        took = time.monotonic() - asked
        self._next = asked + max(_ASK_S, took / _SHARE)

    def names(self) -> list[str]:
        """Name what to load: what was loaded, without the parts that come with an ensemble."""
        explicit = self._site.settings.explicit
        if self._ready is None:
            return [] if explicit is None else list(explicit.load)
        there = {name for name in self._ready if self._config_file(name).is_file()}
        return sorted(there - {part for name in there for part in self._parts(name)})

    def _parts(self, name: str) -> set[str]:
        try:
            config = model_config.read(self._config_file(name))
        except RepositoryError:
            return set()
        return {step.model_name for step in config.ensemble_scheduling.step}

    def _config_file(self, name: str) -> Path:
        return self._site.settings.repository / name / "config.pbtxt"
