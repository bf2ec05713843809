"""The images, really built with buildah on a base from Debian's mirror, and the CPU one run.

No container runtime is needed. A server runs from the image's files in name spaces of its own:
as user 10001, without capabilities, with a root file system that is mounted read-only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from diffusionad_client import Client

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "tools" / "deploy" / "images"
REMEDY = "apt-get install buildah mmdebstrap"
SETPRIV = "--reuid=10001 --regid=10001 --clear-groups --bounding-set=-all --no-new-privs"

# What a container runtime does, but for the network and the limits.
CONTAIN = f"""
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/tmp"
mount --rbind /dev "$1/dev"
mount -t tmpfs -o size=1g tmpfs "$1/dev/shm"
mount --bind "$2" "$1/models"
mount -o remount,ro,bind "$1/models"
mount -o remount,ro,bind "$1"
root=$1; shift 2
exec chroot "$root" /usr/bin/setpriv {SETPRIV} /usr/bin/env -i "$@"
"""

pytestmark = [pytest.mark.long, pytest.mark.server]


class Builder:
    """Builds images with buildah, in a store of its own."""

    def __init__(self, buildah: str, mmdebstrap: str, folder: Path) -> None:
        self._folder = folder
        store = (
            "--storage-driver",
            "vfs",
            "--root",
            f"{folder}/store",
            "--runroot",
            f"{folder}/run",
        )
        self._buildah = (buildah, *store)
        base = folder / "base"
        base.mkdir()
        made = subprocess.run(
            [mmdebstrap, "--quiet", "--variant=minbase", "bookworm", base / "root.tar"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode:
            pytest.skip(f"Debian's mirror gives no base here: {made.stderr.strip()[-300:]}")
        lines = ["FROM scratch", "ADD root.tar /"]
        if certificate := os.environ.get("PIP_CERT"):  # of a proxy, which pip must trust there too
            (base / "host.pem").write_bytes(Path(certificate).read_bytes())
            (base / "pip.conf").write_text("[global]\ncert = /host.pem\n")
            lines += ["COPY host.pem /host.pem", "COPY pip.conf /etc/pip.conf"]
        self.build("\n".join(lines), "debian", base)

    def build(self, file: Path | str, name: str, context: Path = ROOT, **given: str) -> None:
        """Build the image `name` from a Dockerfile, or from its text."""
        if isinstance(file, str):
            (self._folder / "Dockerfile").write_text(file)
            file = self._folder / "Dockerfile"
        arguments = [f"--build-arg={key}={value}" for key, value in given.items()]
        self._run(
            *("bud", "--format=docker", "--isolation=chroot", "--network=host", *arguments),
            *(f"--file={file}", f"--tag=localhost/{name}", str(context)),
        )

    def config(self, name: str) -> dict[str, Any]:
        """The configuration that a container of the image starts with."""
        said = self._run("inspect", "--type=image", f"localhost/{name}")
        found: dict[str, Any] = json.loads(said)["Docker"]["config"]
        return found

    @contextmanager
    def files(self, name: str) -> Iterator[Path]:
        """The image's files."""
        container = self._run("from", f"localhost/{name}").strip()
        try:
            yield Path(self._run("mount", container).strip())
        finally:
            self._run("rm", container)

    def _run(self, *arguments: str) -> str:
        said = subprocess.run(
            [*self._buildah, *arguments], capture_output=True, text=True, check=False
        )
        assert said.returncode == 0, (said.stdout + said.stderr)[-4000:]
        return said.stdout


@pytest.fixture(scope="module")
def builder(find_program: Callable[[str, str], str], temporary: Path) -> Builder:
    if os.geteuid() != 0:
        pytest.skip("only root may mount an image's files; run this test as root")
    return Builder(find_program("buildah", REMEDY), find_program("mmdebstrap", REMEDY), temporary)


def contained(root: Path, models: Path, config: dict[str, Any], *command: str) -> list[str]:
    return [
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", CONTAIN, "_"),
        *(str(root), str(models), *config["Env"], *command),
    ]  # fmt: skip


def test_the_cpu_image_serves_as_a_stranger_on_files_that_nobody_can_write(
    builder: Builder, models: Path, unused_port: Callable[[], int]
) -> None:
    builder.build(IMAGES / "cpu.Dockerfile", "cpu", BASE="localhost/debian")
    config = builder.config("cpu")
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"][:3] == ["CMD", "diffusionad", "health"]
    port = unused_port()
    with builder.files("cpu") as root:

        def run(*command: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                contained(root, models, config, *command),
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip

        assert "Read-only file system" in run("touch", "/opt/diffusionad/x").stderr
        assert "Read-only file system" in run("touch", "/models/x").stderr
        assert run("id", "-u").stdout.strip() == "10001"
        made = run("diffusionad", "release", "keygen", "/tmp/release.key")  # so it can verify, too
        assert made.returncode == 0, made.stderr
        arguments = [f"--grpc-port={port}", "--metrics-port=0", "--model-config-name=default"]
        command = contained(root, models, config, *config["Entrypoint"], *config["Cmd"], *arguments)
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert server.stdout is not None
            said = iter(server.stdout.readline, "")
            assert any(line.startswith("Ready for gRPC") for line in said)
            with Client(f"127.0.0.1:{port}") as client:
                assert all(probe.answers for probe in client.probe())
            health = run(*config["Healthcheck"]["Test"][1:], f"--url=127.0.0.1:{port}")
            assert health.returncode == 0, health.stdout + health.stderr
            children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
            os.kill(
                int(children), signal.SIGTERM
            )  # the first process of a pod, as the kubelet does
            assert server.wait(60) == 0
        finally:
            server.kill()
            server.communicate()


def test_what_the_gpu_image_adds_works_on_a_base_that_stands_in_for_tritons(
    builder: Builder, models: Path
) -> None:
    standin = (
        "FROM localhost/debian\n"
        "RUN apt-get update && "
        "apt-get install --yes --no-install-recommends python3-pip python3-numpy\n"
    )
    builder.build(standin, "standin")
    builder.build(IMAGES / "gpu.Dockerfile", "gpu", TRITON="localhost/standin")
    config = builder.config("gpu")
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["tritonserver"]
    with builder.files("gpu") as root:

        def run(*command: str) -> str:
            said = subprocess.run(
                contained(root, models, config, *command),
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
            assert said.returncode == 0, said.stderr
            return said.stdout

        assert "version" in run("diffusionad", "--version")
        assert "--allow-busy" in run("diffusionad", "health", "--help")
        decode = "import diffusionad_client.images, PIL; print('decodes')"  # as image_decoding does
        assert run("python3", "-c", decode).strip() == "decodes"
