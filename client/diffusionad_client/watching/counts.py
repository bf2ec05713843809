"""Counts of a watch for Prometheus, on this machine's loopback."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from diffusionad_client.errors import ArgumentError
from diffusionad_client.scoring.row import Row
from diffusionad_client.watching.sorter import FAILED

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_VERDICTS = ("OK", "REVIEW", "NG", FAILED)
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def check_can_count() -> None:
    """Raise `ArgumentError` if the package that metrics need is not installed."""
    from importlib.util import find_spec

    if find_spec("prometheus_client") is None:
        raise ArgumentError(
            "--metrics-port needs prometheus-client, which is not installed here; run "
            "`pip install 'diffusionad-client[watch]'`"
        )


class Counts:
    """Counts by verdict and category, served on 127.0.0.1 from `serve` to `stop`."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        registry = CollectorRegistry() if registry is None else registry
        self._registry = registry
        self._images = Counter(
            "diffusionad_watch_images", "Images by verdict.", ["category", "verdict"],
            registry=registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "diffusionad_watch_request_seconds", "From a request to its answer.", ["category"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._commands = Counter(
            "diffusionad_watch_commands", "Commands that were run.", ["verdict", "outcome"],
            registry=registry,
        )  # fmt: skip
        self._last = Gauge(
            "diffusionad_watch_last_image_timestamp_seconds", "When an image was scored last.",
            registry=registry,
        )  # fmt: skip
        self._incomplete = Gauge(
            "diffusionad_watch_incomplete_files", "Files that are not complete yet.",
            registry=registry,
        )  # fmt: skip
        self._server: Any = None

    def begin(self, category: str, incomplete: Callable[[], int]) -> None:
        """Count for a category from now on, whose verdicts are all 0."""
        self._category = category
        for verdict in _VERDICTS:
            self._images.labels(category, verdict)
        self._incomplete.set_function(incomplete)

    def row(self, row: Row) -> None:
        """Count an image."""
        self._images.labels(self._category, row.verdict or FAILED).inc()
        self._last.set_to_current_time()
        if row.request_s is not None:
            self._seconds.labels(self._category).observe(row.request_s)

    def command(self, row: Row, *, failed: bool) -> None:
        """Count a command that has ended. Any thread."""
        self._commands.labels(row.verdict or FAILED, "failed" if failed else "done").inc()

    def serve(self, port: int) -> None:
        """Answer on a port of 127.0.0.1, to this machine alone. Raises `ArgumentError`."""
        from prometheus_client import start_http_server

        try:
            self._server, _ = start_http_server(port, addr="127.0.0.1", registry=self._registry)
        except OSError as exc:
            raise ArgumentError(
                f"--metrics-port {port}: cannot be listened on: {exc.strerror}; choose another"
            ) from exc

    def stop(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
