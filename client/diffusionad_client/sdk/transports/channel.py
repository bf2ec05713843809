"""The options of a gRPC channel: how long messages may be, how a dead line is noticed."""

from __future__ import annotations

import re

# Given as `channel_args`, these replace tritonclient's own, so the message
# lengths must be among them: gRPC's default refuses answers over 4 MB.
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that hangs is noticed by an unanswered ping. More pings than two
    # without data, or pings between calls, make a server hang up on us.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 2),
    # A line that waits for its server to come back should not wait two minutes more.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
# No proxy reaches this machine's own servers, yet gRPC would ask the one in http_proxy to.
_LOOPBACK = re.compile(r"((dns:/*|ipv4:)?(localhost|127(\.\d+){3})|(dns:/*|ipv6:)?\[::1\]):\d+")
_PAST_THE_PROXY = ("grpc.enable_http_proxy", 0)


def channel_options(url: str) -> list[tuple[str, int]]:
    """Give the options of a channel to `url`."""
    local = all(_LOOPBACK.fullmatch(address) for address in url.split(","))
    return [*_CHANNEL_OPTIONS, _PAST_THE_PROXY] if local else [*_CHANNEL_OPTIONS]
