"""The deployment as its own tools make it: the chart rendered by helm, and servers from that.

A path of a container becomes a folder of this machine, a port a free one, `$(NAME)` the value that
Kubernetes would put there. All else of a command line is started as it was rendered.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from ports import free_port, free_ports
from waiting import wait_for

from diffusionad_tools.server.backends import assemble, environment
from diffusionad_tools.server.binaries import locate

ROOT = Path(__file__).parents[2]
CHART = ROOT / "tools" / "deploy" / "chart"
VARIANTS = tuple(sorted(path.name.removesuffix("-values.yaml") for path in CHART.glob("ci/*")))
POD_UID = "0b5c1c1e-pod"
ADMIN_KEY = "k" * 32

wait_until = partial(wait_for, seconds=60)


def program(name: str, remedy: str) -> str:
    """Find a program on PATH, beside this Python or in /usr/sbin; skip the test without it."""
    places = [os.environ.get("PATH", os.defpath), str(Path(sys.prefix, "bin")), "/usr/sbin"]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        pytest.skip(f"{name} is not installed here; {remedy}")
    return found


@pytest.fixture(scope="session")
def find_program() -> Callable[[str, str], str]:
    return program


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run helm."""
    path = program("helm", "`make deploy-tools` puts it into .venv/bin")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([path, *arguments], capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def render(helm: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., list[Any]]:
    """Renders a variant of the chart, with more `--set` if given, as a list of objects."""

    def rendered(variant: str, *more: str) -> list[Any]:
        values = str(CHART / "ci" / f"{variant}-values.yaml")
        said = helm("template", "plant", str(CHART), "-n", "line", "-f", values, *more)
        assert said.returncode == 0, said.stderr
        return [document for document in yaml.safe_load_all(said.stdout) if document]

    return rendered


def pick(documents: list[Any], kind: str, name: str = "plant") -> Any:
    (found,) = (d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name)
    return found


@dataclass
class Deployed:
    """A server that runs with the command line of a rendered pod."""

    process: subprocess.Popen[bytes]
    container: Any
    places: dict[str, str]
    log: Path

    @property
    def grpc_url(self) -> str:
        return f"127.0.0.1:{self.places['8001']}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.places['8002']}/metrics"

    def here(self, argument: str) -> str:
        """Put a container's argument into terms of this machine."""
        return put_here(argument, self.places)

    def probe(self, which: str) -> subprocess.CompletedProcess[str]:
        """Run a probe of the pod as the kubelet would, within its timeout."""
        probe = self.container[which]
        name, *arguments = map(self.here, probe["exec"]["command"])
        assert name == "diffusionad"
        command = [sys.executable, "-m", "diffusionad_client", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=probe["timeoutSeconds"], check=False
        )

    def is_listening(self) -> bool:
        assert self.process.poll() is None, self.log.read_text(errors="replace")[-4000:]
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", int(self.places["8001"]))) == 0


def put_here(argument: str, places: dict[str, str]) -> str:
    """Replace paths, ports and `$(NAME)`; whole words only."""
    for there, here in places.items():
        argument = re.sub(rf"(?<![\w.]){re.escape(there)}(?![\w.])", here, argument)
    assert "$(" not in argument, f"{argument}: Kubernetes would find no value for it"
    return argument


@pytest.fixture(scope="session")
def in_place() -> Callable[[str, dict[str, str]], str]:
    """Puts a container's argument into terms of this machine."""
    return put_here


@contextmanager
def deployed(container: Any, folder: Path, places: dict[str, str]) -> Iterator[Deployed]:
    """Start what a container runs, with a real Triton, and wait until it listens."""
    places = {**dict(zip(("8001", "8002"), map(str, free_ports(2)), strict=True)), **places}
    command = [put_here(word, places) for word in [*container["command"], *container["args"]]]
    triton = locate()
    backends = assemble(folder, triton)
    variables = environment(folder, triton)
    if command[0] == "tritonserver":
        command[0] = str(triton.server)
        prefix = f"--backend-config=python,shm-region-prefix-name=deploy-{os.getpid()}-"
        command += [f"--backend-directory={backends}", prefix]  # the image has them in their places
    else:
        variables = dict(os.environ)
        command[:1] = [sys.executable, "-m", "diffusionad_client"]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=variables, stdout=out, stderr=out, start_new_session=True
        )
    server = Deployed(process, container, places, log)
    try:
        wait_until(server.is_listening)
        yield server
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop a process as Kubernetes does, and all that it has started."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="session")
def deploy() -> Callable[..., Any]:
    return deployed


@pytest.fixture(scope="module")
def temporary() -> Iterator[Path]:
    """A folder of a short name: Triton starts its stubs through a shell."""
    with tempfile.TemporaryDirectory(prefix="deploy-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def models(temporary: Path) -> Path:
    """The shipped model without `configs/`: of these, `gpu` loads on no other host."""
    folder = temporary / "models"
    shutil.copytree(
        ROOT / "model_repository", folder, ignore=shutil.ignore_patterns("configs", "__pycache__")
    )
    return folder


@pytest.fixture(scope="module")
def triton(render: Callable[..., list[Any]], temporary: Path, models: Path) -> Iterator[Deployed]:
    """NVIDIA's server as the GPU variant starts it."""
    pod = pick(render("gpu"), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    places = {"/models": str(models), "$(POD_UID)": POD_UID}
    (temporary / "triton").mkdir()
    with deployed(container, temporary / "triton", places) as server:
        yield server


@pytest.fixture(scope="session")
def unused_port() -> Callable[[], int]:
    return free_port
