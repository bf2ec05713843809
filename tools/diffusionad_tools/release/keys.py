"""The keys that releases are signed with: Ed25519, each in a PEM file, the private one its owner's.

`openssl genpkey -algorithm ed25519` makes such keys too. The package
`cryptography` reads them; it is an extra, `diffusionad-tools[signing]`, and
is imported only where something is signed or verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffusionad_client.sdk.secret_files import read_private, read_public
from diffusionad_tools.errors import SignatureError
from diffusionad_tools.release import durable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

PUBLIC_SUFFIX = ".pub"
_FINGERPRINT_DIGITS = 16  # of the key's SHA-256: enough to tell keys apart, they verify alone


@dataclass(frozen=True)
class SigningKey:
    """A private key. Its `repr` shows nothing of it."""

    private: Ed25519PrivateKey

    @property
    def fingerprint(self) -> str:
        """Name the key in public, in hex."""
        return _fingerprint(self.private.public_key())

    def sign(self, content: bytes) -> bytes:
        """Give the 64 bytes of a signature."""
        return self.private.sign(content)


@dataclass(frozen=True)
class TrustedKeys:
    """Public keys, any of which may have signed a release."""

    keys: dict[str, Ed25519PublicKey]  # by fingerprint

    def signed(self, content: bytes, signature: bytes, fingerprint: str) -> bool:
        """Tell whether the key of that fingerprint, which must be among these, signed `content`."""
        from cryptography.exceptions import InvalidSignature

        try:
            self.keys[fingerprint].verify(signature, content)
        except InvalidSignature:
            return False
        return True

    def __str__(self) -> str:
        return ", ".join(self.keys)


def make_key(path: Path) -> SigningKey:
    """Write a new private key to `path`, and its public half beside it, as `path`.pub.

    Raises `SignatureError`, and leaves what is there, if either file exists or cannot be written.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = path.with_name(path.name + PUBLIC_SUFFIX)
    for file in (path, public):
        if file.exists():
            raise SignatureError(
                f"{file}: is there already; what was signed with a key is worth no more than the "
                "key, so none is written over: choose another name"
            )
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    shown = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write_bytes(path, secret, mode=0o600)
        durable.write_bytes(public, shown)
    except OSError as exc:
        raise SignatureError(f"{exc.filename}: cannot be written: {exc.strerror}") from exc
    return SigningKey(key)


def read_signing_key(path: Path) -> SigningKey:
    """Read a private key.

    Raises `SignatureError` if it is none, `CredentialsError` if others may read it, or nobody.
    """
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    content = read_private(path, "the key to sign with")
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as exc:
        raise SignatureError(
            f"{path}: not a private key that can be used: {exc}; `diffusionad release keygen` "
            "makes one"
        ) from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(_not_ed25519(path))
    return SigningKey(key)


def read_trusted_keys(paths: Sequence[Path]) -> TrustedKeys | None:
    """Read public keys; None for none. Raises `SignatureError` or `CredentialsError`."""
    if not paths:
        return None
    _require_cryptography()
    return TrustedKeys({_fingerprint(key): key for key in map(_read_public_key, paths)})


def _read_public_key(path: Path) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    content = read_public(path, "the trusted key")
    if b"PRIVATE KEY" in content:
        raise SignatureError(
            f"{path}: is a private key, which stays where releases are signed; give the public "
            f"one, {path.name}{PUBLIC_SUFFIX} for a key of `diffusionad release keygen`"
        )
    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise SignatureError(f"{path}: not a public key in PEM: {exc}") from exc
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError(_not_ed25519(path))
    return key


def _fingerprint(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:_FINGERPRINT_DIGITS]


def _not_ed25519(path: Path) -> str:
    return f"{path}: a key of another kind than Ed25519; `diffusionad release keygen` makes one"


def _require_cryptography() -> None:
    from importlib.util import find_spec

    if find_spec("cryptography") is None:
        raise SignatureError(
            "signatures need the package cryptography, which is not installed here; run "
            "`pip install 'diffusionad-tools[signing]'`"
        )
