"""Headers that go with every call: a bearer token, and what else a gateway asks for.

Their values are secrets: no error shows one.
"""

from __future__ import annotations

import re

from diffusionad_client.errors import CredentialsError, shown
from diffusionad_client.sdk.admin_key import ADMIN_METADATA

AUTHORIZATION = "authorization"

_NAME = re.compile(r"[a-z0-9_.-]{1,128}")
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")  # what HTTP/2 carries unchanged
_TOKEN = re.compile(r"[\x21-\x7e]+")
_LONGEST = 8192  # characters; servers take no more in all headers together
_GRPC_OWN = ("content-type", "te", "user-agent", "host")


def check_name(name: str) -> str:
    """Return a header's name in small letters, as gRPC wants it. Raises `CredentialsError`."""
    lower = name.lower() if isinstance(name, str) else ""
    if not _NAME.fullmatch(lower):
        raise CredentialsError(
            f"{shown(name)} is no name of a header: letters, digits, '-', '_' and '.', such as "
            "x-api-key"
        )
    if lower.startswith("grpc-") or lower.endswith("-bin") or lower in _GRPC_OWN:
        raise CredentialsError(f"the header {lower!r} is gRPC's own; choose another name")
    if lower == ADMIN_METADATA:
        raise CredentialsError(
            f"the header {lower!r} is the admin key's, which goes with few calls only; give "
            "admin_key= or --admin-key-file"
        )
    return lower


def check_value(name: str, value: str, where: str = "") -> str:
    """Return a header's value. Raises `CredentialsError`, which does not show it."""
    if not isinstance(value, str) or not _VALUE.fullmatch(value) or len(value) > _LONGEST:
        raise CredentialsError(
            f"{where}the header {name!r} must be one line of ASCII without blanks around it, of "
            f"1 to {_LONGEST} characters"
        )
    return value


def check_token(token: str, where: str = "") -> str:
    """Return a bearer token. Raises `CredentialsError`, which does not show it."""
    if not isinstance(token, str) or not _TOKEN.fullmatch(token) or len(token) > _LONGEST:
        raise CredentialsError(
            f"{where}a token is a text of 1 to {_LONGEST} ASCII characters without blanks, and "
            "without the word Bearer before it"
        )
    return token
