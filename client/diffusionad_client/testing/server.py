"""The gRPC server itself: calls, faults, and what came in."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from diffusionad_client import contract
from diffusionad_client.errors import ArgumentError
from diffusionad_client.sdk.admin_key import ADMIN_METADATA
from diffusionad_client.testing.category import FakeCategory
from diffusionad_client.testing.faults import ANSWERS, WORDS, Fault
from diffusionad_client.testing.tensors import read_batch, write_outputs

_SERVICE = "inference.GRPCInferenceService"
_LOOK_S = 0.02  # at whether a call that hangs is still waited for
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True)
class Received:
    """A request for an image, as it came in; without its pixels."""

    model: str
    request_id: str
    priority: int
    timeout_s: float  # as the server was told of it
    outputs: tuple[str, ...]
    shape: tuple[int, ...]
    headers: Mapping[str, str]
    at: float  # time.monotonic()


@dataclass(eq=False)
class _Failure:
    """A fault that is on, for a number of calls or until it is lifted."""

    fault: Fault
    methods: frozenset[str]
    model: str | None
    left: int | None


class FakeServer:
    """Serves categories on a free port of this machine, from `start` to `close`.

    `admin_key` closes its repository to calls without it. With `certificate`,
    (certificate, key) in PEM, it speaks TLS, with `client_ca` to clients with
    a certificate of that authority only. `keep` is how many requests are
    remembered; `threads`, how many calls it answers at once.
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
        self.admin_key = admin_key
        self.ready = True
        self.slow_s = 0.0  # how long it takes over each image
        self.counts: Counter[str] = Counter()  # of calls, by method
        self.under_way = 0  # images that it has not answered yet
        self.requests: deque[Received] = deque(maxlen=keep)
        self.url = ""
        self._credentials = None
        if certificate is not None:
            self._credentials = grpc.ssl_server_credentials(
                [(certificate[1], certificate[0])], client_ca, client_ca is not None
            )
        self._threads = threads
        self._lock = threading.Lock()
        self._failures: list[_Failure] = []
        self._server: Any = None
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> FakeServer:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen: the first time at a free port, after `stop` at the same."""
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="fake server")
        server = grpc.server(self._pool, options=_OPTIONS)
        server.add_generic_rpc_handlers((self._handlers(),))
        address = self.url or "127.0.0.1:0"
        if self._credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, self._credentials)
        server.start()
        self._server = server
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

    def fail(
        self,
        fault: Fault,
        *methods: str,
        times: int | None = None,
        model: str | None = None,
    ) -> None:
        """Fail calls of these methods, by default `ModelInfer`: `times`, or until `heal`.

        With `model`, those that are about that model alone.
        """
        unknown = set(methods) - set(self._methods())
        if unknown:
            raise ArgumentError(f"Triton has no method {sorted(unknown)[0]!r}")
        named = frozenset(methods or ("ModelInfer",))
        with self._lock:
            self._failures.append(_Failure(fault, named, model, times))

    def heal(self) -> None:
        """Lift all faults; calls that hang are answered."""
        with self._lock:
            self._failures = []

    @contextmanager
    def failing(self, fault: Fault, *methods: str, model: str | None = None) -> Iterator[None]:
        """Fail calls for as long as the context lasts."""
        self.fail(fault, *methods, model=model)
        try:
            yield
        finally:
            self.heal()

    def _methods(self) -> list[str]:
        service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        return [method.name for method in service.methods if hasattr(self, f"_{method.name}")]

    def _handlers(self) -> Any:
        service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        handlers = {}
        for name in self._methods():
            method = service.methods_by_name[name]
            handlers[name] = grpc.unary_unary_rpc_method_handler(
                partial(self._meet, name),
                request_deserializer=getattr(service_pb2, method.input_type.name).FromString,
                response_serializer=_serialized,
            )
        return grpc.method_handlers_generic_handler(_SERVICE, handlers)

    def _meet(self, name: str, request: Any, context: grpc.ServicerContext) -> Any:
        with self._lock:
            self.counts[name] += 1
        if name != _INFER:
            return self._answer(name, request, context)
        self._remember(request, context)
        with self._lock:
            self.under_way += 1
        try:
            return self._answer(name, request, context)
        finally:
            with self._lock:
                self.under_way -= 1

    def _answer(self, name: str, request: Any, context: grpc.ServicerContext) -> Any:
        model = getattr(request, "model_name", "") or getattr(request, "name", "")
        fault = self._fault(name, model)
        while fault is Fault.HANGS and context.is_active():
            time.sleep(_LOOK_S)
            fault = self._fault(name, model)
        if fault in WORDS:
            status, words = WORDS[fault]
            context.abort(status, words.format(model=model))
        return getattr(self, f"_{name}")(request, context, *([fault] if name == _INFER else []))

    def _fault(self, method: str, model: str) -> Fault | None:
        with self._lock:
            for failure in self._failures:
                if method not in failure.methods or failure.model not in (None, model):
                    continue
                if failure.left is not None and failure.fault is not Fault.HANGS:
                    failure.left -= 1
                    if failure.left <= 0:
                        self._failures.remove(failure)
                return failure.fault
        return None

    def _remember(self, request: Any, context: grpc.ServicerContext) -> None:
        self.requests.append(
            Received(
                model=request.model_name,
                request_id=request.id,
                priority=request.parameters["priority"].uint64_param,
                timeout_s=request.parameters["timeout"].int64_param / 1e6,
                outputs=tuple(output.name for output in request.outputs),
                shape=tuple(request.inputs[0].shape) if request.inputs else (),
                headers=dict(context.invocation_metadata()),
                at=time.monotonic(),
            )
        )

    # Triton's methods

    def _ServerLive(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerLiveResponse(live=True)

    def _ServerReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=self.ready)

    def _ServerMetadata(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerMetadataResponse(name="triton", version="2.51.0")

    def _ModelReady(self, request: Any, context: Any) -> Any:
        ready = any(
            request.name in category.models and category.state == "READY"
            for category in self.categories.values()
        )
        return service_pb2.ModelReadyResponse(ready=ready)

    def _ModelMetadata(self, request: Any, context: Any) -> Any:
        category = self._category(request.name, context)
        return service_pb2.ModelMetadataResponse(name=request.name, versions=[category.version])

    def _ModelConfig(self, request: Any, context: Any) -> Any:
        category = self._category(request.name, context)
        if request.version not in ("", category.version):
            status, words = WORDS[Fault.NOT_FOUND]
            context.abort(status, words.format(model=request.name))
        return service_pb2.ModelConfigResponse(config=category.config(request.name))

    def _ModelInfer(self, request: Any, context: Any, fault: Fault | None) -> Any:
        if self.slow_s:
            time.sleep(self.slow_s)
        category = self._category(request.model_name, context)
        batch = read_batch(request, category, context)
        answer = category.answer(batch, [output.name for output in request.outputs])
        if fault in ANSWERS:
            answer = _spoiled(answer, fault)
        response = service_pb2.ModelInferResponse(
            model_name=request.model_name, model_version=category.version, id=request.id
        )
        return write_outputs(response, answer)

    def _RepositoryIndex(self, request: Any, context: Any) -> Any:
        self._check_key(context)
        answer = service_pb2.RepositoryIndexResponse()
        for category in self.categories.values():
            for model in category.models:
                version = category.version if category.state else ""
                reason = category.reason if category.state != "READY" else ""
                answer.models.add(name=model, version=version, state=category.state, reason=reason)
        return answer

    def _RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        self._check_key(context)
        category = self.categories.get(request.model_name.partition("__")[0])
        if category is None or request.model_name not in category.models:
            message = f"failed to load '{request.model_name}', failed to poll from model repository"
            context.abort(grpc.StatusCode.INTERNAL, message)
        elif category.reason:
            message = f"failed to load '{request.model_name}', {category.reason}"
            context.abort(grpc.StatusCode.INTERNAL, message)
        else:
            category.state = "READY"
        return service_pb2.RepositoryModelLoadResponse()

    def _RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        self._check_key(context)
        category = self.categories.get(request.model_name.partition("__")[0])
        if category is not None:
            category.state = ""
        return service_pb2.RepositoryModelUnloadResponse()

    def _category(self, model: str, context: Any) -> FakeCategory:
        found = [category for category in self.categories.values() if model in category.models]
        if found and found[0].state == "READY":
            return found[0]
        status, words = WORDS[Fault.NO_VERSION if found else Fault.NOT_FOUND]
        raise context.abort(status, words.format(model=model))

    def _check_key(self, context: Any) -> None:
        sent = dict(context.invocation_metadata()).get(ADMIN_METADATA)
        if self.admin_key is not None and sent != self.admin_key:
            message = f"This protocol is restricted, expecting header '{ADMIN_METADATA}'"
            context.abort(grpc.StatusCode.UNAVAILABLE, message)


_INFER = "ModelInfer"


def _serialized(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content


def _spoiled(answer: dict[str, Any], fault: Fault | None) -> dict[str, Any]:
    if fault is Fault.LACKS_OUTPUTS:
        return {name: array for name, array in answer.items() if name != contract.SCORE}
    if fault is Fault.WRONG_SHAPE:
        return {**answer, contract.SCORE: np.zeros((1, 3, 3), np.float32)}
    if fault is Fault.OTHER_RELEASE:
        return {**answer, contract.RELEASE: np.array([[b"f" * 64]], np.object_)}
    return {**answer, contract.THRESHOLDS: np.array([[7, 3, -1]], np.float32)}
