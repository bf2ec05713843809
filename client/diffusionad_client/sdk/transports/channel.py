"""What every channel to a server has, whoever waits for its calls: options, headers, errors."""

from __future__ import annotations

import re
import threading
from types import ModuleType
from typing import Any

from tritonclient.grpc import service_pb2

from diffusionad_client.errors import DiffusionADError
from diffusionad_client.sdk.connection import Connection
from diffusionad_client.sdk.credentials import Credentials, Stamp, credentials_of
from diffusionad_client.sdk.transports.base import Headers
from diffusionad_client.sdk.transports.errors import translate
from diffusionad_client.sdk.transports.methods import Message
from diffusionad_client.sdk.transports.tls_failures import ask_why, may_be_tls

# gRPC's default refuses answers over 4 MB.
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that hangs is noticed by an unanswered ping. More pings than two
    # without data, or pings between calls, make a server hang up on us.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 2),
    # A server that comes back is to be reached within a second or two. The minimum is how long a
    # try may take, TLS and all: the way may be long, or the server busy.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 800),
    # Channels of one process share a line to the same server otherwise, and its backoff.
    ("grpc.use_local_subchannel_pool", 1),
)
# No proxy reaches this machine's own servers, yet gRPC would ask the one in http_proxy to.
_LOOPBACK = re.compile(r"((dns:/*|ipv4:)?(localhost|127(\.\d+){3})|(dns:/*|ipv6:)?\[::1\]):\d+")
_PAST_THE_PROXY = ("grpc.enable_http_proxy", 0)


def channel_options(url: str) -> list[tuple[str, int | str]]:
    """Give the options of a channel to `url`."""
    local = all(_LOOPBACK.fullmatch(address) for address in url.split(","))
    return [*_CHANNEL_OPTIONS, _PAST_THE_PROXY] if local else [*_CHANNEL_OPTIONS]


_SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]


def _form(name: str) -> tuple[str, Any, Any]:
    """Give a method's path, and how its messages become bytes and back."""
    method = _SERVICE.methods_by_name[name]
    request = getattr(service_pb2, method.input_type.name)
    response = getattr(service_pb2, method.output_type.name)
    return f"/{_SERVICE.full_name}/{name}", request.SerializeToString, response.FromString


class Line:
    """A channel to one server, and what is said of its calls. Threads may share it.

    `dialler` is `grpc` or `grpc.aio`, whose channels it is of. The channel is
    made when it is first used, and anew when the files of its credentials
    change; calls under way end on the old one. `host` is the name that the
    server's certificate holds, where its address was looked up from one.
    """

    def __init__(
        self,
        dialler: ModuleType,
        url: str,
        *,
        admin_key: str | None,
        credentials: Credentials | None,
        host: str | None,
    ) -> None:
        if credentials is None:
            credentials = credentials_of(Connection(url, admin_key=admin_key))
        self.closed = False
        self.answered = False  # on the channel that there is now
        self.channel: Any = None
        self._dialler = dialler
        self._target = url
        self._options = channel_options(url)
        if host is not None:
            self._options += [
                ("grpc.default_authority", host),
                ("grpc.ssl_target_name_override", host),
            ]
        self._credentials = credentials
        self._methods: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._called = url if host is None else f"{host}:{url.rpartition(':')[2]}"
        self._stamp: Stamp | None = None

    def metadata(self, message: Message[Any]) -> Headers:
        """Give the headers of a call."""
        admin = self._credentials.admin_metadata() if message.of_repository else ()
        return [*self._credentials.metadata(), *message.headers, *admin]

    def method(self, name: str) -> Any:
        """Give what calls a method of Triton's. Raises a `DiffusionADError` once it is closed."""
        with self._lock:
            if self.closed:
                raise self.closed_error()
            stamp = self._credentials.stamp()
            if stamp != self._stamp:
                self._stamp, self.answered = stamp, False
                self._dial()
            method = self._methods.get(name)
            if method is None:
                method = self._methods[name] = self.channel.unary_unary(*_form(name))
            return method

    def _dial(self) -> None:
        """Make the channel; gRPC closes an old one when the last call lets go of it."""
        secret = self._credentials.channel_credentials()
        target, options = self._target, self._options
        if secret is None:
            self.channel = self._dialler.insecure_channel(target, options)
        else:
            self.channel = self._dialler.secure_channel(target, secret, options)
        self._methods = {}

    def error(
        self, code: Any, details: str | None, message: Message[Any], timeout: float
    ) -> DiffusionADError:
        """Say in an error of ours how a call failed."""
        if self.closed:  # it was under way, and was cancelled
            return self.closed_error()
        about = self._about(message)
        return translate(code.name, details or "", about, timeout, loads=message.loads)

    def is_unclear(self, details: str | None) -> bool:
        """Tell whether `why` may know better why a call failed."""
        return not self.answered and not self.closed and may_be_tls(details or "")

    def why(self, details: str, message: Message[Any], timeout: float) -> DiffusionADError | None:
        """Find out, within `timeout` s, whether TLS is why; it blocks."""
        about = self._about(message)
        return ask_why(details, self._called, self._credentials, about, timeout)

    def _about(self, message: Message[Any]) -> str:
        return self._target if message.model is None else f"{message.model} on {self._target}"

    def closed_error(self) -> DiffusionADError:
        """Say that this channel is closed."""
        return DiffusionADError(f"{self._target}: this client is closed; make a new one")
