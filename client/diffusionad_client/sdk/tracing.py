"""Spans of OpenTelemetry, where the program that uses the client has it; else nothing.

Nothing is imported here that the program has not imported itself: a client
without tracing pays nothing for it. A try's context goes along with its
request, so that the server's own trace joins it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from diffusionad_client.sdk.transports.base import Headers

_NAME = "diffusionad_client"


class Span:
    """A span that has begun, or none."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def headers(self) -> Headers:
        """Give the headers by which a server's trace joins this one (W3C traceparent)."""
        if self._span is None:
            return ()
        carrier: dict[str, str] = {}
        _module("propagate").inject(carrier, _module("trace").set_span_in_context(self._span))
        return [*carrier.items()]

    def note(self, **attributes: Any) -> None:
        """Add what was found out since it began."""
        if self._span is not None:
            self._span.set_attributes(_named(attributes))

    @contextmanager
    def inside(self, name: str, **attributes: Any) -> Iterator[Span]:
        """Begin a span inside this one, for as long as the context lasts."""
        if self._span is None:
            yield NO_SPAN
            return
        with _recorded(name, attributes, _module("trace").set_span_in_context(self._span)) as span:
            yield span


NO_SPAN = Span()


@contextmanager
def span(name: str, **attributes: Any) -> Iterator[Span]:
    """Begin a span inside the caller's, for as long as the context lasts."""
    if "opentelemetry.trace" not in sys.modules:
        yield NO_SPAN
        return
    with _recorded(name, attributes, None) as found:
        yield found


@contextmanager
def _recorded(name: str, attributes: dict[str, Any], context: Any) -> Iterator[Span]:
    """Record a span, and the error that ends it.

    It is not made the current one: steps of several calls take turns in a thread.
    """
    trace = _module("trace")
    tracer = trace.get_tracer(_NAME)
    found = tracer.start_span(
        name, context, kind=trace.SpanKind.CLIENT, attributes=_named(attributes)
    )
    try:
        yield Span(found)
    except BaseException as exc:
        found.record_exception(exc)
        found.set_status(trace.Status(trace.StatusCode.ERROR, type(exc).__name__))
        raise
    finally:
        found.end()


def _module(name: str) -> Any:
    return import_module(f"opentelemetry.{name}")


def _named(attributes: dict[str, Any]) -> dict[str, Any]:
    return {f"diffusionad.{key}": v for key, v in attributes.items() if v is not None}
