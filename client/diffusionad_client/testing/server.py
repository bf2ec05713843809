"""The gRPC server itself: it listens, and lets each call meet its fault or its answer."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from diffusionad_client.errors import ArgumentError, ServeError, shown
from diffusionad_client.testing.calls import FaultPlan, Log, Planned, Received, received
from diffusionad_client.testing.category import FakeCategory
from diffusionad_client.testing.faults import (
    NOT_THERE,
    SPOILED,
    Fault,
    Refusal,
    RefusedError,
    refusal,
)
from diffusionad_client.testing.service import Service
from diffusionad_client.testing.tensors import replace_output

_SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_INFER = "ModelInfer"
_EVERY = "*"
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.so_reuseport", 0),
)


class FakeServer:
    """Serves categories on a free port of this machine, from `start` to `stop`.

    Without categories it serves one, "screw". `admin_key` closes its repository
    to calls without it. With `certificate`, (certificate, key) in PEM, it speaks
    TLS, with `client_ca` to clients with a certificate of that authority only.
    `keep` is how many requests are remembered; `threads`, how many calls it
    answers at once: one that hangs or is slow takes a thread meanwhile.

    `url` is where it listens, `counts` are the calls by Triton's name of their
    method, `requests` the last ones for images, and `under_way` how many of
    those it has not answered yet. `slow_s` is how long it takes over each
    image, in seconds. `on_call` is called with each call before that meets a
    fault or its answer, and may turn on either. Where it or a category's own
    function raises, the call fails with INTERNAL and says so.
    """

    def __init__(
        self,
        *categories: FakeCategory,
        admin_key: str | None = None,
        certificate: tuple[bytes, bytes] | None = None,
        client_ca: bytes | None = None,
        keep: int = 1000,
        threads: int = 16,
    ) -> None:
        served = categories or (FakeCategory(),)
        self.categories = {category.name: category for category in served}
        self.url = ""
        self.slow_s = 0.0
        self.on_call: Callable[[Received], None] | None = None
        self._credentials = None
        if certificate is not None:
            self._credentials = grpc.ssl_server_credentials(
                [(certificate[1], certificate[0])], client_ca, client_ca is not None
            )
        elif client_ca is not None:
            raise ArgumentError("client_ca is of TLS; give the server a certificate, too")
        for name, number, least in (("keep", keep, 0), ("threads", threads, 1)):
            if type(number) is not int or number < least:
                raise ArgumentError(f"{name} is a number of at least {least}, not {shown(number)}")
        self._service = Service(self.categories, admin_key)
        self._methods = self._service.methods()
        self._log = Log(keep)
        self._plan = FaultPlan()
        self._threads = threads
        self._server: Any = None
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> FakeServer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen: the first time at a free port, after `stop` at the same.

        Raises `ServeError` if something else listens there by now, or the
        certificate is none.
        """
        if self._server is not None:
            return
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="fake server")
        server = grpc.server(pool, options=_OPTIONS)
        server.add_generic_rpc_handlers((self._handlers(),))
        address = self.url or "127.0.0.1:0"
        try:
            if self._credentials is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, self._credentials)
        except RuntimeError as exc:
            pool.shutdown()
            raise ServeError(
                f"a fake server cannot listen on {address}: something else does, or its "
                "certificate and key are no PEM files of one pair"
            ) from exc
        server.start()
        self._server, self._pool = server, pool
        self.url = f"127.0.0.1:{port}"

    def stop(self) -> None:
        """Stop at once, as a server that is killed: calls under way are cut off."""
        server, self._server = self._server, None
        if server is not None:
            server.stop(grace=None).wait()
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    @property
    def category(self) -> FakeCategory:
        """The only category."""
        (category,) = self.categories.values()
        return category

    @property
    def ready(self) -> bool:
        """What it answers to the question whether it is ready."""
        return self._service.ready

    @ready.setter
    def ready(self, ready: bool) -> None:
        self._service.ready = ready

    @property
    def admin_key(self) -> str | None:
        """The key that opens its repository; None if that is open to all."""
        return self._service.admin_key

    @admin_key.setter
    def admin_key(self, key: str | None) -> None:
        self._service.admin_key = key

    @property
    def counts(self) -> Counter[str]:
        """The calls that came, by Triton's name of their method."""
        return self._log.counts

    @property
    def requests(self) -> deque[Received]:
        """The last requests for images, the latest last."""
        return self._log.requests

    @property
    def under_way(self) -> int:
        """How many requests for images are not answered yet."""
        return self._log.under_way

    def serve(self, category: FakeCategory) -> None:
        """Serve a category from now on, in the place of one of that name."""
        self.categories[category.name] = category

    def promote(self, category: str = "", **changes: Any) -> FakeCategory:
        """Serve another release of a category, by default of the only one; its next version.

        `changes` are fields of a `FakeCategory`, such as `thresholds`,
        `release` or `score`. Raises `ArgumentError` for others.
        """
        promoted = self.categories[category] if category else self.category
        promoted.promote(changes)
        return promoted

    def fail(
        self,
        fault: Fault | Refusal,
        *methods: str,
        times: int | None = None,
        seconds: float | None = None,
        model: str | None = None,
    ) -> None:
        """Fail calls of these methods, by default `ModelInfer`; "*" stands for all of them.

        So many `times`, for some `seconds`, or until `heal`; with `model`, those
        that are about that model alone. Raises `ArgumentError` for a method
        that Triton has not.
        """
        self._plan.add(self._planned(fault, methods, times, seconds, model))

    def heal(self) -> None:
        """Lift all faults; calls that hang are answered."""
        self._plan.lift()

    @contextmanager
    def failing(
        self, fault: Fault | Refusal, *methods: str, model: str | None = None
    ) -> Iterator[None]:
        """Fail calls for as long as the context lasts."""
        planned = self._planned(fault, methods, None, None, model)
        self._plan.add(planned)
        try:
            yield
        finally:
            self._plan.lift(planned)

    def _planned(
        self,
        fault: Fault | Refusal,
        methods: tuple[str, ...],
        times: int | None,
        seconds: float | None,
        model: str | None,
    ) -> Planned:
        named = frozenset(self._methods if _EVERY in methods else methods or (_INFER,))
        if unknown := sorted(named - set(self._methods)):
            raise ArgumentError(
                f"a fake server has no method {shown(unknown[0])}; it has {sorted(self._methods)}"
            )
        until = None if seconds is None else time.monotonic() + seconds
        return Planned(fault, named, model, times, until)

    def _handlers(self) -> Any:
        handlers = {}
        for name in self._methods:
            method = _SERVICE.methods_by_name[name]
            handlers[name] = grpc.unary_unary_rpc_method_handler(
                partial(self._meet, name),
                request_deserializer=getattr(service_pb2, method.input_type.name).FromString,
                response_serializer=_serialized,
            )
        return grpc.method_handlers_generic_handler(_SERVICE.full_name, handlers)

    def _meet(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        call = received(method, request, dict(context.invocation_metadata()))
        self._log.begin(call)
        try:
            return self._answer(call, request, context)
        except RefusedError as exc:
            status, words = exc.status, exc.words
        except Exception as exc:
            status = grpc.StatusCode.INTERNAL
            words = f"on_call or a function of the category failed: {type(exc).__name__}: {exc}"
        finally:
            self._log.end(call)
        return context.abort(status, words)

    def _answer(self, call: Received, request: Any, context: grpc.ServicerContext) -> Any:
        if self.on_call is not None:
            self.on_call(call)
        planned = self._plan.meet(call)
        fault = None if planned is None else planned.fault
        if planned is not None and fault is Fault.HANGS and context.add_callback(self._plan.wake):
            self._plan.hang(planned, context.is_active)
        if isinstance(fault, Fault):
            fault = refusal(fault, call.method, call.model, call.request_id) or fault
        if isinstance(fault, Refusal):
            raise RefusedError(fault.status, fault.words)
        if self.slow_s and call.method == _INFER and context.add_callback(self._plan.wake):
            self._plan.pause(self.slow_s, context.is_active)
        if call.method == "ModelReady" and fault in NOT_THERE:
            return service_pb2.ModelReadyResponse(ready=False)
        response = self._methods[call.method](request, call.headers)
        if fault in SPOILED:
            replace_output(response, *SPOILED[fault])
        return response


def _serialized(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content
