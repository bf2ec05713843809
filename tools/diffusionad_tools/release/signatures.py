"""Signatures of releases: who vouches for which networks and thresholds, in one small file.

    signature.json
      schema        1
      category      whose release it may become
      files         name -> SHA-256, of every other file of the bundle
      key           which key signed, see `keys`
      signature     Ed25519 over all of the above but the key, in base64

A release keeps it, with the `metadata.json` that it vouches for, in its
ensemble's version folder. The metadata hold the digests of the graphs and the
thresholds, so that what a server computes can be held against it for as long
as the release is there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusionad_client.artifacts.bundle import (
    METADATA_FILE,
    SIGNATURE_FILE,
    Bundle,
    file_digest,
    graph_path,
)
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_client.contract import NETWORK_STEPS
from diffusionad_client.errors import MetadataError
from diffusionad_client.files import PART
from diffusionad_tools.errors import SignatureError
from diffusionad_tools.release import durable
from diffusionad_tools.release.candidate import Candidate, published
from diffusionad_tools.release.keys import SigningKey, TrustedKeys
from diffusionad_tools.release.repository import Release

SCHEMA = 1
SIGNED_FILES = (SIGNATURE_FILE, METADATA_FILE)  # as a release keeps them


@dataclass(frozen=True)
class ReleaseSignature:
    """A signature, and what it is of."""

    category: str
    files: Mapping[str, str]  # name -> SHA-256 in hex
    key: str  # its fingerprint
    signature: bytes

    @property
    def signed(self) -> bytes:
        """The bytes that were signed; the same statement is the same bytes."""
        return _statement(self.category, self.files)

    def to_json(self) -> str:
        """Write the file."""
        document = {
            **json.loads(self.signed),
            "key": self.key,
            "signature": base64.b64encode(self.signature).decode(),
        }
        return json.dumps(document, indent=2, sort_keys=True) + "\n"

    def check(self, trusted: TrustedKeys, what: str) -> None:
        """Raise `SignatureError` unless one of the trusted keys signed this."""
        if self.key not in trusted.keys:
            raise SignatureError(
                f"{what}: signed with the key {self.key}, and trusted is {trusted}; have it "
                "signed by whom you trust, or trust that key too"
            )
        if not trusted.signed(self.signed, self.signature, self.key):
            raise SignatureError(
                f"{what}: the signature is not of what it lies beside: it was altered after "
                f"{self.key} had signed it; take the bundle anew from where it was signed"
            )


def sign_bundle(
    bundle: Bundle, key: SigningKey, *, category: str | None = None
) -> ReleaseSignature:
    """Sign every file of a bundle, beside which the signature is written in place of another.

    `category` is another than the bundle's, under which it is to be released.
    Raises `SignatureError` if something is in the folder that no bundle has.
    """
    files = {name: file_digest(path) for name, path in _files(bundle.folder).items()}
    signature = _sign(category or bundle.metadata.category, files, key)
    part = bundle.folder / (SIGNATURE_FILE + PART)
    try:
        part.unlink(missing_ok=True)
        durable.write_text(part, signature.to_json())
        durable.move_into_place(part, bundle.folder / SIGNATURE_FILE)
    except OSError as exc:
        raise SignatureError(f"{exc.filename}: cannot be written: {exc.strerror}") from exc
    return signature


def check_bundle(
    bundle: Bundle, category: str, trusted: TrustedKeys | None
) -> ReleaseSignature | None:
    """Hold a bundle that is to become a release of `category` against its signature.

    Without trusted keys only what it says of the files, if it has one. Gives what the release
    is to keep, None for nothing. Raises `SignatureError`.
    """
    path = bundle.folder / SIGNATURE_FILE
    if not path.exists():
        if trusted is None:
            return None
        raise SignatureError(
            f"{bundle.folder}: is not signed, and only what {trusted} signed is taken; "
            f"`diffusionad release sign {bundle.folder} --key FILE` signs it"
        )
    signature = read_signature(path)
    if trusted is not None:
        signature.check(trusted, str(bundle.folder))
    found = _files(bundle.folder)
    for name in sorted({*found, *signature.files}):
        file = bundle.folder / name
        if name not in found:
            raise SignatureError(f"{file}: was signed and is missing; take the bundle anew")
        if name not in signature.files:
            raise SignatureError(f"{file}: was not signed with the rest; remove it")
        if file_digest(file) != signature.files[name]:
            raise SignatureError(
                f"{file}: is not the file that was signed; take the bundle anew from where it was "
                "signed, or have it signed again if the change is wanted"
            )
    if signature.category != category:
        if trusted is None:  # nobody asks for a signature, and this one is another release's
            return None
        raise SignatureError(
            f"{bundle.folder}: is signed as a release of {signature.category}, not of {category}; "
            f"sign it for that with `release sign --name {category}`"
        )
    return signature


def keep(bundle: Bundle, signature: ReleaseSignature, candidate: Candidate) -> None:
    """Lay a bundle's signature, and the metadata that it vouches for, into a candidate."""
    metadata = (bundle.folder / METADATA_FILE).read_bytes()
    _keep(signature, metadata, candidate)


def sign_candidate(candidate: Candidate, key: SigningKey) -> None:
    """Sign a candidate that is no bundle's: other thresholds on the same networks."""
    metadata = candidate.metadata.as_exported()
    text = metadata.to_json().encode()
    graphs = {graph_path(Path(), s).name: metadata.digests[s.value] for s in NETWORK_STEPS}
    files = {METADATA_FILE: hashlib.sha256(text).hexdigest(), **graphs}
    _keep(_sign(metadata.category, files, key), text, candidate)


def kept_text(repository: Path, release: Release) -> str | None:
    """Read the signature that a release keeps, as it stands; None if it has none."""
    try:
        return (folder_of(repository, release) / SIGNATURE_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def folder_of(repository: Path, release: Release) -> Path:
    """Where a release keeps its signature."""
    return repository / release.metadata.category / str(release.version)


def signature_problems(repository: Path, release: Release, trusted: TrustedKeys) -> Iterator[str]:
    """Say why a release is not what a trusted key signed; nothing if it is.

    Its graphs must be held against the digests in its metadata besides.
    """
    folder = folder_of(repository, release)
    what = f"{release.metadata.category} version {release.version}"
    if not (folder / SIGNATURE_FILE).exists():
        yield (
            f"{what}: is not signed ({folder / SIGNATURE_FILE} is missing), and only what "
            f"{trusted} signed is taken; sign its bundle and add it again"
        )
        return
    try:
        signature = read_signature(folder / SIGNATURE_FILE)
        signature.check(trusted, str(folder))
        vouched = _read_metadata(folder / METADATA_FILE, signature)
        if signature.category != release.metadata.category:
            yield f"{what}: its signature is for a release of {signature.category}"
        named = published(vouched.changed(category=signature.category))
        if named.as_exported() != release.metadata.as_exported():
            yield (
                f"{what}: its metadata (thresholds, digests of graphs, ...) are not those that "
                f"were signed, in {folder / METADATA_FILE}"
            )
    except (SignatureError, MetadataError) as exc:
        yield f"{what}: {exc}"


def signer(repository: Path, release: Release) -> str | None:
    """Name the key that a release says it is signed with; None if it is not signed.

    Anybody can write a name: `signature_problems` holds it against a key. Raises `SignatureError`
    if the file cannot be read.
    """
    path = folder_of(repository, release) / SIGNATURE_FILE
    return read_signature(path).key if path.exists() else None


def require_signed(repository: Path, release: Release, trusted: TrustedKeys | None) -> None:
    """Raise `SignatureError` unless a trusted key, if there are any, signed a release."""
    problems = [] if trusted is None else list(signature_problems(repository, release, trusted))
    if problems:
        raise SignatureError("; ".join(problems) + ". Nothing was changed")


def read_signature(path: Path) -> ReleaseSignature:
    """Read a `signature.json`. Raises `SignatureError`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise SignatureError(
                f"{path}: has schema {document['schema']!r}, these tools know {SCHEMA}; update "
                "diffusionad-tools"
            )
        category, files, key = document["category"], document["files"], document["key"]
        if not all(isinstance(text, str) for text in (category, key, *files, *files.values())):
            raise TypeError("a name or a digest is no text")
        signature = base64.b64decode(document["signature"], validate=True)
    except OSError as exc:
        raise SignatureError(f"{path}: cannot be read: {exc.strerror}") from exc
    except KeyError as exc:
        raise SignatureError(f"{path}: not a signature of a release: {exc} is missing") from exc
    except (AttributeError, TypeError, ValueError, RecursionError, binascii.Error) as exc:
        raise SignatureError(f"{path}: not a signature of a release: {exc}") from exc
    return ReleaseSignature(category, files, key, signature)


def _read_metadata(path: Path, signature: ReleaseSignature) -> ReleaseMetadata:
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise SignatureError(f"{path}: cannot be read: {exc.strerror}") from exc
    if hashlib.sha256(content).hexdigest() != signature.files.get(METADATA_FILE):
        raise SignatureError(f"{path}: is not the file that was signed")
    return ReleaseMetadata.from_json(content.decode("utf-8", errors="replace"))


def _files(folder: Path) -> dict[str, Path]:
    """Map the names of a bundle's files, but for its signature, to where they are."""
    found = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name in (SIGNATURE_FILE, SIGNATURE_FILE + PART):
            continue
        if not entry.is_file(follow_symlinks=False):
            raise SignatureError(
                f"{entry.path}: no bundle has a folder or a link in it, and neither can be "
                "signed; move it away"
            )
        found[entry.name] = Path(entry.path)
    return found


def _sign(category: str, files: Mapping[str, str], key: SigningKey) -> ReleaseSignature:
    signed = _statement(category, files)
    return ReleaseSignature(category, files, key.fingerprint, key.sign(signed))


def _statement(category: str, files: Mapping[str, str]) -> bytes:
    document: dict[str, Any] = {"schema": SCHEMA, "category": category, "files": dict(files)}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _keep(signature: ReleaseSignature, metadata: bytes, candidate: Candidate) -> None:
    folder = candidate.folder / candidate.metadata.category / str(candidate.version)
    durable.write_text(folder / SIGNATURE_FILE, signature.to_json())
    durable.write_bytes(folder / METADATA_FILE, metadata)
