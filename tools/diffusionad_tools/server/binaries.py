"""Find what an embedded Triton is made of. Nothing is started or imported here.

The server, its Python backend and that backend's stub, one for each Python
version, lie in the nvidia-pytriton wheel. The stub embeds Python and so needs
a shared libpython, which comes with the Python installation, not the wheel.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from diffusionad_client.distributions import install_hint
from diffusionad_client.errors import ServeError

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_SYSTEM_LIBRARIES = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64",
                     "/usr/local/lib", "/usr/lib")  # fmt: skip


@dataclass(frozen=True)
class TritonFiles:
    """Where the parts of the server lie on this machine."""

    server: Path  # the tritonserver binary
    libraries: Path  # folder of the shared libraries that came with it
    python_backend: tuple[Path, ...]  # files that make up Triton's Python backend
    stub: Path  # the process in which the Python backend runs a model
    libpython: Path  # the shared library that the stub needs


def locate() -> TritonFiles:
    """Find every part. Raises `ServeError` that names the missing one and its remedy."""
    package = _wheel_package()
    triton = package / "tritonserver"
    backend = triton / "backends" / "python"
    files = TritonFiles(
        server=triton / "bin" / "tritonserver",
        libraries=package.parent / "nvidia_pytriton.libs",
        python_backend=(
            backend / "libtriton_python.so",
            backend / "triton_python_backend_utils.py",
        ),
        stub=triton / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub",
        libpython=find_libpython(_library_folders()),
    )
    for path in (files.server, files.libraries, *files.python_backend):
        if not path.exists():
            raise ServeError(
                f"{path}: missing from the nvidia-pytriton installation; repair it with: "
                "pip install --force-reinstall --no-deps nvidia-pytriton"
            )
    if not files.stub.exists():
        versions = sorted(p.name for p in files.stub.parent.parent.glob("3.*"))
        raise ServeError(
            f"nvidia-pytriton brings no stub for Python {_PYTHON} ({files.stub}); "
            f"run diffusionad-tools on one of Python {', '.join(versions) or '3.11, 3.12'}"
        )
    return files


def find_libpython(folders: Iterable[Path]) -> Path:
    """Find the running Python's shared library in `folders`, the first that has it."""
    name = f"libpython{_PYTHON}.so.1.0"
    searched = list(folders)
    for folder in searched:
        if (folder / name).is_file():
            return folder / name
    raise ServeError(
        f"{name} is missing; Triton's Python backend cannot run without it. Looked in "
        f"{', '.join(str(folder) for folder in searched)}. Remedy: `apt-get install "
        f"libpython{_PYTHON}` (`dnf install python{_PYTHON}-libs`), or use a Python built with "
        "--enable-shared"
    )


def _library_folders() -> list[Path]:
    """Folders that may hold libpython: the interpreter's own first, then the loader's."""
    libdir = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    own = [libdir, Path(sys.base_prefix) / "lib"]  # relocated Pythons keep a stale LIBDIR
    loader = [Path(p) for p in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if p]
    return list(dict.fromkeys([*own, *loader, *map(Path, _SYSTEM_LIBRARIES)]))


def _wheel_package() -> Path:
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise ServeError(
            "nvidia-pytriton, which brings the embedded Triton, is not installed here; it comes "
            "with diffusionad-tools on Linux x86-64 with Python 3.11 or 3.12: "
            + install_hint("diffusionad-tools")
        )
    return Path(spec.submodule_search_locations[0])
