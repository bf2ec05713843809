"""An image sent through a category: the one proof that its steps answer.

Triton calls a model ready whose process has died, and takes a load of it for
done. Nothing is retried here: what counts is how things stand now.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from diffusionad_client import contract
from diffusionad_client.contract import Priority
from diffusionad_client.errors import (
    DeadlineExceededError,
    DiffusionADError,
    ServerBusyError,
)
from diffusionad_client.grey import GREY, grey_file
from diffusionad_client.sdk.catalogue import Catalogue
from diffusionad_client.sdk.deadline import Deadline
from diffusionad_client.sdk.inference import Request, infer
from diffusionad_client.sdk.prepared import prepare
from diffusionad_client.sdk.servers import Server
from diffusionad_client.sdk.steps import Steps
from diffusionad_client.sdk.tracing import NO_SPAN

# A step may run in several processes, of which one is dead: servers give them their requests
# in turn, so one image would not meet it.
_IMAGES = 4


@dataclass(frozen=True)
class Probe:
    """How a category, or its encoded form, took an image."""

    model: str
    seconds: float  # the slowest image; until the failure, if there was one
    version: str | None = None  # that answered; None: it failed
    release: str | None = None
    error: DiffusionADError | None = None
    server: str = ""  # its address

    @property
    def answers(self) -> bool:
        """Tell whether it gave an answer to every image."""
        return self.error is None

    @property
    def is_refused(self) -> bool:
        """Tell whether a queue was full, which the server said at once: it lives, and is busy."""
        return isinstance(self.error, ServerBusyError)

    @property
    def is_broken(self) -> bool:
        """Tell whether it fails for another reason than that it is busy."""
        busy = isinstance(self.error, (DeadlineExceededError, ServerBusyError))
        return not self.answers and not busy


def probe(server: Server, model: str, deadline: Deadline) -> Steps[Probe]:
    """Send a grey image through a category or its encoded form, several times."""
    category = model.partition("__")[0]
    if model == contract.encoded_model(category):
        picture = prepare(grey_file(), decode="server")
    else:
        picture = prepare(GREY)
    request = Request(
        picture, category, [contract.SCORE], Priority.INLINE, contract.PROBE_ID, NO_SPAN
    )
    slowest = 0.0
    for _ in range(_IMAGES):
        started = time.perf_counter()
        try:
            reply = yield from infer(request, server, deadline)
        except DiffusionADError as exc:
            seconds = time.perf_counter() - started
            return Probe(model, seconds, error=exc, server=server.url)
        slowest = max(slowest, time.perf_counter() - started)
    version, release = reply.served.version, reply.served.metadata.release
    return Probe(model, slowest, version, release, server=server.url)


def probe_all(server: Server, catalogue: Catalogue, deadline: Deadline) -> Steps[list[Probe]]:
    """Probe all that a server serves; what it could not load, or this client not use, fails."""
    forms: list[str] = []
    for served in catalogue.served:
        forms.append(served.model)
        if served.model in catalogue.encoded:
            forms.append(contract.encoded_model(served.model))
    found = []
    for form in forms:
        found.append((yield from probe(server, form, deadline)))
    for refused in catalogue.refused:
        found.append(Probe(refused.model, 0.0, error=refused.reason, server=server.url))
    for idle in catalogue.idle:
        if idle.reason:  # without one, nobody asked for it
            reason = DiffusionADError(f"{idle.model}: {idle.reason}")
            found.append(Probe(idle.model, 0.0, error=reason, server=server.url))
    return found
