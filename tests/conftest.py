"""What all tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import settings

# Tiny networks gain nothing from threads, and lose much to each other's: tests start many
# processes. Before anything loads torch or numpy.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background job ignores SIGINT, and so do the processes that it starts: what tests
# interrupt would run on.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Shared machines are slow by turns: a deadline would test the neighbour's load.
settings.register_profile("diffusionad", deadline=None, derandomize=True)
settings.load_profile("diffusionad")


class Certificates:
    """Authorities and certificates, made on the spot, as files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.authority = trustme.CA()
        self.stranger = trustme.CA()  # nobody trusts it
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.strange_ca = folder / "stranger.pem"
        self.stranger.cert_pem.write_to_path(self.strange_ca)
        self.client_cert, self.client_key = self.write("client", self.issue("line@plant"))

    def issue(self, *names: str, by: trustme.CA | None = None, **times: Any) -> trustme.LeafCert:
        return (by or self.authority).issue_cert(*names, **times)

    def write(self, name: str, cert: trustme.LeafCert) -> tuple[Path, Path]:
        """Write certificate and key, each beside and then in its place."""
        pem, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        part = self._folder / "part"
        part.write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
        os.replace(part, pem)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "wb") as file:
            file.write(cert.private_key_pem.bytes())
        os.replace(part, key)
        return pem, key

    def reach(self, port: int, host: str = "127.0.0.1", **given: Any) -> Any:
        """A connection to that port which trusts our authority, unless `given` says else."""
        from diffusionad_client import Connection

        return Connection(f"{host}:{port}", timeout=10, **{"ca_cert": self.ca, **given})


@pytest.fixture(scope="session")
def make_certificates() -> type[Certificates]:
    """Makes authorities and certificates in a folder."""
    return Certificates
