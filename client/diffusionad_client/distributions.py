"""How to install a distribution of DiffusionAD that is missing here."""

from __future__ import annotations

_FOLDERS = {  # of the repository, from which they are installed: no package index has them
    "diffusionad-client": "client",
    "diffusionad-training": "training",
    "diffusionad-tools": "tools",
}


def install_hint(distribution: str, extra: str | None = None) -> str:
    """Say how to install a distribution, or one with an extra."""
    folder = f"./{_FOLDERS[distribution]}"
    wanted = folder if extra is None else f"'{folder}[{extra}]'"
    return f"install it from DiffusionAD's repository: pip install {wanted}"
