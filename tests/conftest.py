"""What all tests share."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

# Tiny networks gain nothing from threads, and lose much to each other's: tests start many
# processes. Before anything loads torch or numpy.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background job ignores SIGINT, and so do the processes that it starts: what tests
# interrupt would run on.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Shared machines are slow by turns: a deadline would test the neighbour's load.
settings.register_profile("diffusionad", deadline=None, derandomize=True)
settings.load_profile("diffusionad")

WORKERS_A_CORE = 2  # tests wait: for servers to start, for timeouts, for commands
HEAVIEST_FIRST = ("end_to_end", "training", "tools", "deploy", "docs", "client")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """For `--numprocesses auto`. A worker takes up to 700 MB."""
    return min(WORKERS_A_CORE * len(os.sched_getaffinity(0)), 16)


# Warming torch's exporter up takes seconds in each process that exports: one does it for all.
EXPORTING = (
    *("test_export", "test_lean", "test_old_runs", "test_precision", "test_reduced_large_step"),
    *("test_region", "test_run_folder", "test_small_step_alone"),
)


class ByFile(LoadFileScheduling):
    """Gives a worker the tests of a file together, and those of all that export."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "exporting" if Path(file).stem in EXPORTING else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Schedule so; xdist asks."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker is left alone with it at the end.

    Needs `--no-loadscope-reorder`: xdist begins with the files of the most tests, which are quick.
    """
    tests = Path(__file__).parent
    order = {name: place for place, name in enumerate(HEAVIEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.relative_to(tests).parts[0], len(order)))


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a folder for all workers of a test run: the first that asks makes it. Leave it as is.

    `made_once(name, make)` calls `make(folder)` with a folder that is not there yet. The others
    wait for it; if it fails, the next one tries in another.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all workers
    root /= "once"
    root.mkdir(exist_ok=True)

    def once(name: str, make: Callable[[Path], object]) -> Path:
        where = root / f"{name}.made"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not where.exists():
                folder = tmp_path_factory.mktemp("made") / name
                make(folder)
                where.write_text(str(folder))
        return Path(where.read_text())

    return once


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
