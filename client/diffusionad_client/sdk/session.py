"""What `Client` and `AsyncClient` do, as steps: each method of theirs is one course here."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import TypeVar

from diffusionad_client import contract, images
from diffusionad_client.errors import ImageError, ModelLoadError
from diffusionad_client.sdk.arguments import Decode, check_flag
from diffusionad_client.sdk.catalogue import Catalogue
from diffusionad_client.sdk.deadline import Deadline
from diffusionad_client.sdk.health import Health, read_health
from diffusionad_client.sdk.inference import Reply, Request, infer
from diffusionad_client.sdk.inspection import Inspection, Timings
from diffusionad_client.sdk.judgement import judge_by_metadata, judgement_that_came
from diffusionad_client.sdk.options import Options
from diffusionad_client.sdk.prepared import Prepared, prepare
from diffusionad_client.sdk.probe import Probe, probe, probe_all
from diffusionad_client.sdk.retries import Budget, persist
from diffusionad_client.sdk.served import ServedModel
from diffusionad_client.sdk.servers import Dial, Server, Servers
from diffusionad_client.sdk.settling import load_when_settled
from diffusionad_client.sdk.stats import Stats, Tally
from diffusionad_client.sdk.steps import Steps, ask, together, work
from diffusionad_client.sdk.tracing import span
from diffusionad_client.sdk.transports.forks import CALLS_UNDER_WAY

T = TypeVar("T")


class Session:
    """The servers of one client, and what its calls have in common. Threads may share it."""

    def __init__(self, urls: tuple[str, ...], dial: Dial) -> None:
        self._urls = urls
        self._dial = dial
        self._lock = Lock()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._servers = Servers(self._urls, self._dial)
        self._budget = Budget()
        self._tally = Tally()
        self._tries = Tally()  # of inspections

    @property
    def servers(self) -> Servers:
        """The servers; of a process that was forked, by lines of its own."""
        if os.getpid() != self._pid:
            CALLS_UNDER_WAY.check()  # before the parent's channels are let go of
            self._lock = Lock()  # the parent's may be held, by a thread that is not here
            with self._lock:
                if os.getpid() != self._pid:
                    self._begin()
        return self._servers

    def close(self) -> Steps[None]:
        """Close the lines to all servers; calls under way end with an error."""
        yield from self.servers.close()

    def inspect(
        self,
        image: images.ImageSource,
        options: Options,
        *,
        anomaly_map: bool,
        reconstruction: bool,
        color: images.Color,
        decode: Decode,
    ) -> Steps[Inspection]:
        """Score one image."""
        outputs = [contract.SCORE]
        outputs += [contract.ANOMALY_MAP] if check_flag("anomaly_map", anomaly_map) else []
        outputs += [contract.RECONSTRUCTION] if check_flag("reconstruction", reconstruction) else []
        deadline = Deadline(options.timeout)
        self.servers.check_open()
        request_id = uuid.uuid4().hex
        with (
            self._counted(),
            span("diffusionad.inspect", model=options.model, request_id=request_id) as here,
        ):
            picture = yield from work(
                lambda: prepare(image, color=color, decode=decode, timeout=deadline.left())
            )
            request = Request(picture, options.model, outputs, options.priority, request_id, here)
            form = options.model
            if form is not None and decode == "server":
                form = contract.encoded_model(form)

            def attempt(server: Server, share: Deadline) -> Steps[Reply]:
                self._tries.begin()
                return infer(request, server, share)

            try:
                reply = yield from self._persist(attempt, deadline, form, options, about=request_id)
            except ImageError as exc:
                if decode != "server" or picture.name is None:
                    raise
                raise ImageError(f"{picture.name}: {exc}") from exc  # the server knows no name
            inspection = _inspection(reply, picture, request_id)
            here.note(
                verdict=inspection.verdict.value,
                score=inspection.score,
                release=inspection.release,
                server=inspection.server,
            )
        own = options.thresholds
        return inspection if own is None else inspection.judged_by(own)

    def served(self, options: Options) -> Steps[ServedModel]:
        """Ask which release of a category is served now."""
        deadline = Deadline(options.timeout)

        def attempt(server: Server, deadline: Deadline) -> Steps[ServedModel]:
            model = options.model or (yield from server.releases.only_category(deadline))
            return (yield from server.releases.fetch_newest(model, deadline))

        return (yield from self._persist(attempt, deadline, options.model, options, wait=False))

    def catalogue(self, options: Options) -> Steps[Catalogue]:
        """List the categories of a server's repository."""

        def attempt(server: Server, deadline: Deadline) -> Steps[Catalogue]:
            return server.releases.categories(deadline)

        deadline = Deadline(options.timeout)
        return (yield from self._persist(attempt, deadline, None, options, wait=False))

    def load(self, model: str, options: Options) -> Steps[ServedModel]:
        """Load a category, or load it anew, on every server."""
        deadline = Deadline(options.timeout)
        model = check_form(model)
        loaded = yield from self._everywhere(partial(self._load, model), deadline)
        return loaded[0]

    def _load(self, model: str, server: Server, deadline: Deadline) -> Steps[ServedModel]:
        yield from load_when_settled(server.link, model, deadline)
        served = yield from server.releases.fetch_newest(model, deadline)
        proof = yield from probe(server, model, deadline)
        if proof.is_broken:
            raise ModelLoadError(
                f"{model}: {server.url} says that it is loaded, but it does not answer; a server "
                f"does not load again what has not changed, so restart it: {proof.error}"
            ) from proof.error
        return served

    def unload(self, model: str, options: Options) -> Steps[None]:
        """Unload a category from every server."""
        deadline = Deadline(options.timeout)
        model = check_form(model)
        yield from self._everywhere(partial(self._unload, model), deadline)

    def _unload(self, model: str, server: Server, deadline: Deadline) -> Steps[None]:
        yield from ask(lambda: server.link.unload(model, timeout=deadline.left()))
        server.releases.forget(model)

    def health(self, options: Options) -> Steps[Health]:
        """Ask every server how it is."""
        deadline = Deadline(options.timeout)
        yield from self.servers.begin(deadline)
        return (yield from read_health(self.servers.all(), deadline))

    def probe(self, model: str | None, options: Options) -> Steps[list[Probe]]:
        """Send a grey image through a category, or through all, of every server."""
        deadline = Deadline(options.timeout)
        chosen = options.model if model is None else check_form(model)
        probes = yield from self._everywhere(partial(self._probe, chosen), deadline)
        return [found for each in probes for found in each]

    def _probe(self, model: str | None, server: Server, deadline: Deadline) -> Steps[list[Probe]]:
        if model is not None:
            return [(yield from probe(server, model, deadline))]
        catalogue = yield from server.releases.categories(deadline)
        return (yield from probe_all(server, catalogue, deadline))

    def stats(self) -> Stats:
        """Sum up what was done so far."""
        servers = tuple(server.stats() for server in self.servers.all())
        tally, tries = self._tally, self._tries
        return Stats(
            calls=tally.asked,
            tries=tries.asked,
            answers=tally.answered,
            errors=dict(tally.errors),
            latencies=tally.latencies(),
            servers=servers,
        )

    def _everywhere(
        self, course: Callable[[Server, Deadline], Steps[T]], deadline: Deadline
    ) -> Steps[list[T]]:
        """Take a course with every server, at once."""
        yield from self.servers.begin(deadline)
        courses = [course(server, deadline) for server in self.servers.all()]
        return (yield from together(courses))

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a call, and what comes of it."""
        started = time.monotonic()
        self._tally.begin()
        try:
            yield
        except BaseException as exc:
            self._tally.fail(exc)
            raise
        self._tally.answer(time.monotonic() - started)

    def _persist(
        self,
        attempt: Callable[[Server, Deadline], Steps[T]],
        deadline: Deadline,
        model: str | None,
        options: Options,
        *,
        wait: bool = True,
        about: str = "a call",
    ) -> Steps[T]:
        return persist(
            attempt,
            servers=self.servers,
            budget=self._budget,
            deadline=deadline,
            model=model,
            retry=options.retry,
            wait=wait,
            about=about,
        )


def check_form(model: str) -> str:
    """Return `model` if it names a category or its encoded form."""
    if isinstance(model, str) and model == contract.encoded_model(model.partition("__")[0]):
        return model
    return contract.check_category(model)


def _inspection(reply: Reply, picture: Prepared, request_id: str) -> Inspection:
    """Make of the tensors that came what a user reads."""
    served, tensors = reply.served, reply.tensors
    score = float(tensors[contract.SCORE][0])
    if reply.judged:
        judgement = judgement_that_came(tensors, served.metadata)
    else:
        judgement = judge_by_metadata(score, served.metadata)
    return Inspection(
        score=score,
        verdict=judgement.verdict,
        thresholds=judgement.thresholds,
        anomaly_map=tensors.get(contract.ANOMALY_MAP),
        reconstruction=tensors.get(contract.RECONSTRUCTION),
        pixel_threshold=judgement.pixel_threshold,
        model=served.metadata.category,
        version=served.version,
        release=judgement.release,
        roi=served.metadata.roi,
        timings=Timings(picture.decode_s, picture.resize_s, reply.request_s),
        size=picture.size,
        depth=served.metadata.depth,
        request_id=request_id,
        server=reply.server,
    )
