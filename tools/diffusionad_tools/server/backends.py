"""Lay out the folder from which an embedded Triton takes its backends and their Python.

    FOLDER/
      backends/
        python/        Triton's own Python backend, with the stub of this Python
        onnxruntime/   ours: a model.py, which Triton runs through the Python backend, and its parts
      lib/             libpython and nothing else
      models/          links to the models, if other things lie among them
      repository       a link to the model repository, if its own path needs one
      venv/            a virtual environment that leads to this interpreter's packages

Files of `backends/` are copied: Triton refuses a backend library that a
symbolic link takes outside its backend directory.

The stub embeds Python in isolated mode: it ignores PYTHONPATH and PYTHONHOME,
and takes its packages from the environment of the first `python3` on PATH.
So `venv/` is put there.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from importlib.resources import as_file, files
from pathlib import Path

import diffusionad_tools
from diffusionad_client.errors import ServeError
from diffusionad_tools.folders import FolderKind, kinds
from diffusionad_tools.server.binaries import TritonFiles

_PLAIN = re.compile(r"[\w./@%+=:,-]*", re.ASCII)

# Of backends/onnxruntime/*.py, and of models/image_decoding/model.py in repositories.
_MODEL_IMPORTS = ("numpy", "onnxruntime", "PIL", "diffusionad_client")

# Or the stubs would write __pycache__ into model repositories. Lines of a .pth file that begin
# with `import` are run; the variable for it goes unread in isolated mode.
_NO_BYTECODE = "import sys; sys.dont_write_bytecode = True"

# Or the C library gives the memory of every image's tensors back to the system, and asks for
# it anew for the next: a millisecond of CPU an image. So much may stay.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}


def assemble(folder: Path, triton: TritonFiles) -> Path:
    """Fill `folder` as drawn above; return the backend directory in it."""
    backends = folder / "backends"
    python = backends / "python"
    python.mkdir(parents=True)
    for source in (*triton.python_backend, triton.stub):
        shutil.copy(source, python)
    onnxruntime = backends / "onnxruntime"
    onnxruntime.mkdir()
    with as_file(files(diffusionad_tools) / "backends" / "onnxruntime") as ours:
        for source in ours.glob("*.py"):
            shutil.copy(source, onnxruntime)
    library = folder / "lib"
    library.mkdir()
    (library / triton.libpython.name).symlink_to(triton.libpython)
    _make_environment(folder / "venv")
    return backends


def plain_path(repository: Path, folder: Path) -> Path:
    """Give a path to the repository that a shell takes as it is, if need be a link in `folder`.

    Triton starts each stub through a shell and quotes nothing: at a blank or a
    bracket in the path, the stub does not start and the server waits for ever.
    """
    if not _PLAIN.fullmatch(str(folder)):
        raise ServeError(
            f"the temporary folder {folder} has a name that Triton cannot start from; set TMPDIR "
            "to one of letters, digits, '.', '_' and '-'"
        )
    if _PLAIN.fullmatch(str(repository)):
        return repository
    link = folder / "repository"
    link.symlink_to(repository)
    return link


def without_strays(repository: Path, folder: Path) -> Path:
    """Give a path to the repository's models alone: itself, or links to them in `folder`.

    Only for a server that reads its repository once: what is added later is not seen.
    """
    found = kinds(repository)
    if FolderKind.STRAY not in found.values():
        return repository
    view = folder / "models"
    view.mkdir()
    for name, kind in found.items():
        if kind is not FolderKind.STRAY:
            (view / name).symlink_to(repository / name)
    return view


def environment(folder: Path, triton: TritonFiles) -> dict[str, str]:
    """Give the variables with which the server and its stubs start.

    libpython has a folder to itself, so that nothing else that lies beside it
    in the Python installation gets in front of Triton's libraries. What the
    user's own folders hold, CUDA perhaps, comes last.
    """
    own = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if path]
    inherited = {k: v for k, v in os.environ.items() if k not in {"PYTHONHOME", "PYTHONPATH"}}
    return {
        **_KEEP_MEMORY,
        **inherited,
        "LD_LIBRARY_PATH": os.pathsep.join([str(folder / "lib"), str(triton.libraries), *own]),
        "PATH": os.pathsep.join([str(folder / "venv" / "bin"), os.environ.get("PATH", os.defpath)]),
    }


def _make_environment(folder: Path) -> None:
    """Write a virtual environment by hand: `venv` would take longer than all the rest."""
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    python = folder / "bin" / "python3"
    python.parent.mkdir(parents=True)
    python.symlink_to(base)
    (folder / "pyvenv.cfg").write_text(
        f"home = {base.parent}\ninclude-system-site-packages = false\n", encoding="utf-8"
    )
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    found = dict.fromkeys(_import_folder(name) for name in _MODEL_IMPORTS)
    lines = [_NO_BYTECODE, *found]
    (packages / "diffusionad.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _import_folder(package: str) -> str:
    """Name the folder from which this interpreter imports `package`."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ServeError(f"{package} is not installed here; install it with: pip install {package}")
    return str(Path(spec.origin).parent.parent)
