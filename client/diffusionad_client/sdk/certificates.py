"""What can be told of certificates before a server is dialled: that they can be used at all.

The standard library checks a key against its certificate, but says of a
client's certificate neither who it is of nor until when it is valid. So
the two times are read from the DER here, where RFC 5280 puts them:

    Certificate   ::= SEQUENCE { tbsCertificate, ... }
    tbsCertificate ::= SEQUENCE { [0] version OPTIONAL, serialNumber, signature, issuer,
                                  validity SEQUENCE { notBefore, notAfter }, ... }
"""

from __future__ import annotations

import re
import ssl
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from diffusionad_client.errors import CredentialsError

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION_TAG, _UTC_TIME = 0xA0, 0x17


class Validity(NamedTuple):
    """From when until when a certificate is good."""

    since: datetime
    until: datetime


def validities(pem: bytes, path: Path) -> list[Validity]:
    """Give the validity of each certificate in a file. Raises `CredentialsError` without any."""
    blocks = _PEM.findall(pem)
    if not blocks:
        raise CredentialsError(
            f"{path}: there is no certificate in it; give a PEM file, with lines like "
            "-----BEGIN CERTIFICATE-----"
        )
    try:
        return [_validity(ssl.PEM_cert_to_DER_cert(block.decode("ascii"))) for block in blocks]
    except (ValueError, IndexError) as exc:
        raise CredentialsError(
            f"{path}: a certificate in it is damaged; write the file anew"
        ) from exc


def check_authorities(pem: bytes, path: Path) -> None:
    """Raise `CredentialsError` unless the file holds an authority that is valid now."""
    found = validities(pem, path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as exc:
        raise CredentialsError(
            f"{path}: a certificate in it is damaged ({_reason(exc)}); write the file anew"
        ) from exc
    newest = max(found, key=lambda validity: validity.until)
    _check_now(newest, f"{path}: the authority's certificate")


def check_pair(
    certificate: bytes, certificate_path: Path, key_path: Path, *, whose: str = "the client's"
) -> None:
    """Raise `CredentialsError` unless certificate and key belong together, and are valid now.

    `certificate` is the content of its file, with the certificate of the key first.
    """
    own = validities(certificate, certificate_path)[0]

    def refuse_password() -> str:
        raise CredentialsError(
            f"{key_path}: the key is encrypted, which gRPC cannot read; decrypt it with "
            f"`openssl pkey -in {key_path} -out decrypted.key`"
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
            certificate_path, key_path, password=refuse_password
        )
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise CredentialsError(
                f"{key_path}: this is not the key of the certificate {certificate_path}; give the "
                "two that were made together"
            ) from exc
        raise CredentialsError(
            f"{key_path}: there is no private key in it that can be used ({_reason(exc)}); give "
            "a PEM file, with lines like -----BEGIN PRIVATE KEY-----"
        ) from exc
    except OSError as exc:
        raise CredentialsError(
            f"{certificate_path}, {key_path}: cannot be read: {exc.strerror}"
        ) from exc
    _check_now(own, f"{certificate_path}: {whose} certificate")


def _check_now(validity: Validity, what: str) -> None:
    now = datetime.now(timezone.utc)
    if now > validity.until:
        raise CredentialsError(
            f"{what} has expired, at {validity.until:%Y-%m-%d %H:%M} UTC; have a new one made"
        )
    if now < validity.since:
        raise CredentialsError(
            f"{what} is valid only from {validity.since:%Y-%m-%d %H:%M} UTC on; is this "
            "machine's clock right?"
        )


def _validity(der: bytes) -> Validity:
    _, certificate, _ = _element(der, 0)
    _, tbs, _ = _element(certificate, 0)
    tag, _, at = _element(tbs, 0)  # the version; of version 1 the serial number
    for _ in range(3 if tag == _VERSION_TAG else 2):
        _, _, at = _element(tbs, at)
    _, times, _ = _element(tbs, at)
    first_tag, since, at = _element(times, 0)
    last_tag, until, _ = _element(times, at)
    return Validity(_time(first_tag, since), _time(last_tag, until))


def _element(der: bytes, at: int) -> tuple[int, bytes, int]:
    """Read the element at a place: its tag, its content, and the place after it."""
    tag, length, start = der[at], der[at + 1], at + 2
    if length >= 0x80:  # the long form: so many bytes of length follow
        start += length - 0x80
        length = int.from_bytes(der[at + 2 : start], "big")
    if start + length > len(der):
        raise ValueError("an element is longer than what holds it")
    return tag, der[start : start + length], start + length


def _time(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year: 50 to 99 are of the last century
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)


def _reason(exc: Exception) -> str:
    """Say in OpenSSL's words what is wrong, without its line numbers."""
    reason = getattr(exc, "reason", None)
    return str(reason).lower().replace("_", " ") if reason else "it cannot be read as PEM"
