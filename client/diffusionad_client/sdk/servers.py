"""The servers that a client may ask: which of them next, and which not for now.

One channel a server, and the server with the fewest calls under way is asked
next (docs/decisions/0023). One that fails is left, looked at in the
background, and taken back when it says that it is ready; a host's name is
looked up anew every 5 seconds and when one of its servers is left.
"""

from __future__ import annotations

import ipaddress
import itertools
import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import RLock

from diffusionad_client.errors import (
    DiffusionADError,
    ServerUnavailableError,
    TLSError,
)
from diffusionad_client.sdk.deadline import Deadline
from diffusionad_client.sdk.releases import Releases, Told
from diffusionad_client.sdk.standing import Standing
from diffusionad_client.sdk.stats import ServerStats, Tally
from diffusionad_client.sdk.steps import Alongside, Pause, Resolve, Steps, ask, together
from diffusionad_client.sdk.transports.base import Transport

RESOLVE_EVERY_S = 5.0  # a new server of a fleet is to take load within 10 s
RESOLVE_S = 5.0  # for one look-up, and until a name of which nothing was found is tried again
LOOK_S = 1.0  # for the answer of a server that was left
_TICK_S = 0.1

_log = logging.getLogger("diffusionad_client.sdk")

# (address, host's name): the name is what its certificate holds, if the address was looked up.
Dial = Callable[[str, "str | None"], Transport]


@dataclass(eq=False)
class Server:
    """One server, and what a client knows of it."""

    url: str
    link: Transport
    releases: Releases
    tally: Tally = field(default_factory=Tally)
    under_way: int = 0
    used: int = 0  # the turn in which it was chosen last
    _standings: dict[str, Standing] = field(default_factory=dict)

    def standing(self, model: str) -> Standing:
        """Give how a model fares on it; "" stands for calls that name none."""
        found = self._standings.get(model)
        return found or self._standings.setdefault(model, Standing(model))

    def away(self) -> list[Standing]:
        """Give what is sent no calls."""
        known = [*self._standings.values()]  # at once: other threads add to them
        return [standing for standing in known if standing.away is not None]

    def stats(self) -> ServerStats:
        """Sum up what it was asked for."""
        tally = self.tally
        return ServerStats(
            url=self.url,
            up=not self.away(),
            under_way=self.under_way,
            tries=tally.asked,
            answers=tally.answered,
            errors=dict(tally.errors),
            latencies=tally.latencies(),
        )


class Servers:
    """All servers of one client. Threads may share it."""

    def __init__(self, urls: Collection[str], dial: Dial) -> None:
        self._dial = dial
        self._lock = RLock()
        self._closed = False
        self._turns = itertools.count(1)
        self._told = Told()
        self._places = [_Place(url, *_host_of(url)) for url in urls]
        for place in self._places:
            if place.host is None:
                place.servers = [self._server(place.url)]

    @property
    def name(self) -> str:
        """Name them in a message."""
        return ", ".join(place.url for place in self._places)

    def all(self) -> list[Server]:
        """Give the servers that there are now."""
        with self._lock:
            return [server for place in self._places for server in place.servers]

    def reached(self, model: str | None = None) -> bool:
        """Tell whether any has ever told of a release: of that model, or of any."""
        return bool(self._told.models) if model is None else model in self._told.models

    def choose(self, model: str, tried: Collection[Server]) -> Server | None:
        """Choose the server to ask next, rather one that is not among those tried.

        It has had its turn by that: who chooses at the same moment gets another.
        """
        with self._lock:
            open_now = [s for s in self.all() if s.standing(model).admits]
            return self._least_busy([s for s in open_now if s not in tried] or open_now)

    def others(self, model: str, tried: Collection[Server]) -> bool:
        """Tell whether there is a server to ask that is not among those tried."""
        with self._lock:
            return any(s.standing(model).admits for s in self.all() if s not in tried)

    def any(self) -> Server | None:
        """Give a server, whether it is left or not."""
        with self._lock:
            return self._least_busy(self.all())

    def _least_busy(self, servers: Collection[Server]) -> Server | None:
        chosen = min(servers, key=lambda s: (s.under_way, s.used), default=None)
        if chosen is not None:
            chosen.used = next(self._turns)
        return chosen

    def any_away(self, model: str) -> bool:
        """Tell whether one is left for now, that may know better when it is back.

        One of which the certificate is wrong is not waited for.
        """
        reasons = [server.standing(model).away for server in self.all()]
        return any(why is not None and not isinstance(why, TLSError) for why in reasons)

    def answered_since(self, server: Server, model: str, when: float) -> bool:
        """Tell whether a server has answered a call since then."""
        return server.standing(model).answered_at > when

    def heard_of(self, server: Server, model: str) -> None:
        """Hear that a server refused a call for good reason: it is there."""
        with self._lock:
            server.standing(model).answered(time.monotonic())

    @contextmanager
    def trying(self, server: Server, model: str) -> Iterator[Standing]:
        """Count a try at a server, for as long as it lasts."""
        standing = server.standing(model)
        with self._lock:
            server.under_way += 1
            standing.under_way += 1
        started = time.monotonic()
        server.tally.begin()
        try:
            yield standing
        except BaseException as exc:
            server.tally.fail(exc)
            raise
        else:
            server.tally.answer(time.monotonic() - started)
            with self._lock:
                standing.answered(time.monotonic())
        finally:
            with self._lock:
                server.under_way -= 1
                standing.under_way -= 1

    def leave(self, server: Server, model: str, why: DiffusionADError) -> None:
        """Send a model's calls to a server no more until it is seen to be back.

        The only one is left if it was ever reached: its address may be wrong else.
        """
        with self._lock:
            if not self.reached() and len(self.all()) == 1:
                return
            # Without its traceback, which would hold a client that nobody else does, as logs do.
            news = server.standing(model).left(_again(why), time.monotonic())
            for place in self._places:
                if server in place.servers and place.host is not None:
                    place.resolve_at = min(place.resolve_at, time.monotonic())
        if news:
            _log.warning("%s is left for now: %s", server.url, str(why))

    def why_away(self, model: str) -> DiffusionADError:
        """Say why none of them is asked."""
        reasons = [standing.away for s in self.all() if (standing := s.standing(model)).away]
        if len(reasons) == 1:
            return _again(reasons[0])
        texts = "; ".join(str(reason) for reason in reasons) or "one call tries whether it answers"
        return ServerUnavailableError(f"{self.name}: no server answers: {texts}")

    def check_open(self) -> None:
        """Raise a `DiffusionADError` if they were closed."""
        if self._closed:
            raise DiffusionADError(f"{self.name}: this client is closed; make a new one")

    def close(self) -> Steps[None]:
        """Close the lines to all of them; calls under way end with an error."""
        with self._lock:
            self._closed = True
        for server in self.all():
            yield from ask(server.link.close)

    def begin(self, deadline: Deadline) -> Steps[None]:
        """See to it that there are servers to choose from, and that those left are looked at."""
        self.check_open()
        now = time.monotonic()
        unknown = [place for place in self._places if place.host and not place.servers]
        if unknown:
            timeout = min(RESOLVE_S, deadline.left())
            yield from together([self._look_up(place, timeout) for place in unknown])
            self.check_open()
        yield from self._follow_names(now)
        if any(server.away() for server in self.all()):
            yield Alongside("upkeep", self.upkeep)

    def upkeep(self) -> Steps[None]:
        """Look at the servers that were left until there are none."""
        while any(server.away() for server in self.all()):
            now = time.monotonic()
            yield from self._follow_names(now)
            due = [(s, st) for s in self.all() for st in s.away() if st.look_at <= now]
            if due:
                yield from together([self._look_at(server, standing) for server, standing in due])
            yield Pause(_TICK_S)

    def _follow_names(self, now: float) -> Steps[None]:
        """Have names looked up that are due, each by itself: a resolver that hangs holds up none.

        Nor does it hold up the looks at servers that were left.
        """
        for place in self._places:
            if place.host and place.resolve_at <= now:
                yield Alongside(f"look-up of {place.url}", partial(self._look_up, place))

    def _look_at(self, server: Server, standing: Standing) -> Steps[None]:
        """Ask a server that was left whether it is back.

        A server is not ready while any model of its is not, be it one that nobody asks for.
        """
        model = standing.model or server.releases.was_only
        back = False
        try:
            if model:
                back = yield from ask(lambda: server.link.model_ready(model, timeout=LOOK_S))
            if not standing.model and not back:
                back = yield from ask(lambda: server.link.ready(timeout=LOOK_S))
        except DiffusionADError as exc:
            # Who lets no such question through may let the calls themselves through.
            back = not (exc.retryable or isinstance(exc, TLSError))
        with self._lock:
            if standing.away is None:  # a call that was under way has answered meanwhile
                return
            if back:
                standing.came_back()
            else:
                standing.seen_away(time.monotonic())
        if back:
            _log.info("%s says that it is ready, and is tried again", server.url)

    def _look_up(self, place: _Place, timeout: float = RESOLVE_S) -> Steps[None]:
        """Look a host's addresses up, for `timeout` s at most, and follow what has changed."""
        assert place.host is not None
        place.resolve_at = time.monotonic() + RESOLVE_EVERY_S
        addresses: list[str] = yield Resolve(place.host, place.port, timeout)
        if not addresses:
            place.resolve_at = time.monotonic() + RESOLVE_S
        if not addresses and place.servers:
            return  # what is known is better than nothing
        wanted: dict[str, str | None] = {place.url: None}  # gRPC looks it up, or says what is wrong
        if len(addresses) > 1:
            wanted = {address: place.host for address in addresses}
        with self._lock:
            if self._closed:
                return
            gone = [server for server in place.servers if server.url not in wanted]
            kept = {server.url: server for server in place.servers if server.url in wanted}
            place.servers = [
                kept.get(url) or self._server(url, name) for url, name in wanted.items()
            ]
        for server in gone:
            self._told.only.pop(server.url, None)
            _log.info("%s: %s is not one of its servers any more", place.host, server.url)
            yield Alongside(f"close {server.url}", partial(self._retire, server))

    def _retire(self, server: Server) -> Steps[None]:
        """Close the line to a server that is gone when its last calls are over."""
        while server.under_way:
            yield Pause(_TICK_S)
        yield from ask(server.link.close)

    def _server(self, url: str, name: str | None = None) -> Server:
        link = self._dial(url, name)
        return Server(url, link, Releases(link, url, self._told))


@dataclass(eq=False)
class _Place:
    """One address that a user gave: of one server, or of a name that stands for many."""

    url: str
    host: str | None  # to look up; None: the address is one server
    port: int
    servers: list[Server] = field(default_factory=list)
    resolve_at: float = 0.0


def _host_of(url: str) -> tuple[str | None, int]:
    """Give the name to look up in an address, if there is one, and its port."""
    host, _, port = url.rpartition(":")
    if ":" in host or "/" in host or not port.isdecimal():  # one of gRPC's schemes, or IPv6
        return None, 0
    if host == "localhost" or host.endswith(".localhost"):
        return None, 0
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host, int(port)
    return None, 0


def _again(exc: DiffusionADError) -> DiffusionADError:
    """Make an error anew: one that many threads raise would grow a longer and longer trace."""
    again = type(exc)(str(exc))
    again.retryable = exc.retryable
    return again
