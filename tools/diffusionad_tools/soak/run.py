"""A soak from its beginning to its report."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffusionad_client.errors import DiffusionADError, SourceError
from diffusionad_client.sdk.client import Client
from diffusionad_tools.server.linux import resident_bytes
from diffusionad_tools.soak import loads
from diffusionad_tools.soak.memory import Growth, Memory
from diffusionad_tools.soak.plant import Plant, golden_run, open_plant
from diffusionad_tools.soak.tally import Expected, SoakTally

_LOOK_S = 0.2


@dataclass(frozen=True, kw_only=True)
class SoakSettings:
    """How long, how often, how much. Times are in seconds."""

    seconds: float = 3600.0
    promote_every: float = 300.0
    restart_every: float = 600.0
    sample_every: float = 5.0
    lines: int = 2  # threads that send parts inline


@dataclass(frozen=True, kw_only=True)
class SoakReport:
    """What a soak has seen. `kept` tells whether every promise was."""

    seconds: float
    counts: Mapping[str, int]
    broken: Mapping[str, int]
    examples: Mapping[str, list[str]]
    memory: Mapping[str, Growth]

    @property
    def kept(self) -> bool:
        """Tell whether no promise was broken, and memory was flat."""
        return not self.broken and all(growth.flat for growth in self.memory.values())

    def to_document(self) -> dict[str, Any]:
        """Give the report as JSON has it."""
        return {"kept": self.kept, **asdict(self)}


def soak(
    repository: Path,
    images: Sequence[Path],
    settings: SoakSettings,
    say: Callable[[str], None],
    *,
    category: str | None = None,
    disturb: Callable[[dict[tuple[str, str], Expected]], object] = lambda golden: None,
) -> SoakReport:
    """Load a server that is started, promoted and restarted, and hold all against a golden run.

    Repository and images are copied, and left as they are. `disturb` may change
    what the golden run has found, so that a test sees it noticed.
    Raises a `DiffusionADError` if there is nothing to soak.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        plant = stack.enter_context(open_plant(repository, category, folder))
        name = plant.category
        say(f"Asking for {len(images)} images under two releases of {name}, undisturbed ...")
        named = _copied(images, folder / "images")
        golden = golden_run(plant, named)
        disturb(golden)
        tally, memory = SoakTally(golden), Memory()
        client = stack.enter_context(Client(plant.url, name, timeout=loads.PATIENCE_S))
        work: list[loads.Load] = [
            *(loads.inline(client, named, tally) for _ in range(settings.lines)),
            loads.nonsense(client, tally),
            loads.folders(plant.url, name, folder / "images", folder, tally),
        ]
        say(f"Soaking for {settings.seconds / 60:g} minutes ...")
        begun = time.monotonic()
        work.append(partial(_measure, plant, memory, begun, settings.sample_every))
        with loads.running(work, tally):
            _go_on(plant, settings, tally, begun, say)
        seconds = time.monotonic() - begun
        tally.count("starts that failed", plant.failed_starts)
        asked, answered = tally.counts["inline asked"], tally.counts["inline"]
        if asked != answered + tally.broken["lost"] and not tally.broken:
            tally.breaks("lost", f"{asked} parts were sent inline, {answered} answered")
        if not tally.counts["folders"]:
            tally.breaks("lost", "no folder was scored at all")
        return SoakReport(
            seconds=seconds,
            counts=dict(tally.counts),
            broken=dict(tally.broken),
            examples=dict(tally.examples),
            memory=memory.growths(seconds),
        )


def _copied(images: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Copy images into one folder, under names of which none is twice. Raises `SourceError`."""
    folder.mkdir()
    named = {}
    for number, path in enumerate(images):
        target = folder / f"{number:05d}-{path.name}"
        try:
            shutil.copyfile(path, target)
        except OSError as exc:
            raise SourceError(f"{path}: cannot be read: {exc.strerror}") from exc
        named[target.name] = target
    return named


def _measure(
    plant: Plant, memory: Memory, begun: float, every: float, stop: threading.Event
) -> None:
    """Look at the memory of all processes, in a thread of its own: a restart takes its time."""
    while not stop.wait(every):
        at, life = time.monotonic() - begun, plant.lives
        server, stubs = plant.processes()
        memory.add("client", at, 0, resident_bytes(os.getpid()))
        memory.add("tritonserver", at, life, resident_bytes(server))
        memory.add("models", at, life, sum(map(resident_bytes, stubs)))


def _go_on(
    plant: Plant,
    settings: SoakSettings,
    tally: SoakTally,
    begun: float,
    say: Callable[[str], None],
) -> None:
    """Promote and restart, each in its time, until the time is up."""

    def happens(what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except DiffusionADError as exc:
            tally.breaks("failed", f"{what}: {exc}")
        else:
            tally.count(what)

    due = {
        "promotions": (begun + settings.promote_every, settings.promote_every, plant.promote),
        "restarts": (begun + settings.restart_every, settings.restart_every, plant.restart),
    }
    while (now := time.monotonic()) < begun + settings.seconds:
        if (fault := plant.fault()) is not None:
            tally.breaks("failed", f"the server: {fault}")
            happens("restarts", plant.restart)
        for what, (when, every, act) in due.items():
            if now >= when:
                happens(what, act)
                due[what] = (when + every, every, act)
                say(f"{(time.monotonic() - begun) / 60:.1f} min: {what} {tally.counts[what]}")
        time.sleep(_LOOK_S)
