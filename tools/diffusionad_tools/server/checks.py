"""Look at a repository before a server is started on it, so that what is wrong is said at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from diffusionad_client.errors import ServeError
from diffusionad_client.sdk.certificates import check_authorities, check_pair
from diffusionad_client.sdk.secret_files import read_private, read_public
from diffusionad_tools.folders import FolderKind, kinds

ALL_MODELS = "*"  # for --load-model: every model of the repository
DEFAULT = "default"  # for --model-config-name: each model's config.pbtxt
CPU = "cpu"  # the configuration for a host without a GPU


def check_repository(repository: Path) -> None:
    """Raise `ServeError` unless the folder exists and holds a model."""
    if not repository.is_dir():
        raise ServeError(
            f"{repository}: no such model repository; "
            f"`diffusionad release add BUNDLE --repository {repository}` makes one"
        )
    if not any(repository.glob("*/config.pbtxt")):
        raise ServeError(
            f"{repository}: no model in it; add one with "
            f"`diffusionad release add BUNDLE --repository {repository}`"
        )


def check_models(repository: Path, names: Sequence[str]) -> None:
    """Raise `ServeError` unless each name is that of a model in the repository, or "*" alone."""
    if ALL_MODELS in names and len(names) > 1:
        raise ServeError("--load-model '*' loads every model; give it alone, or give names")
    for name in names:
        if name != ALL_MODELS and not (repository / name / "config.pbtxt").is_file():
            raise ServeError(
                f"--load-model {name}: {repository} has no such model; "
                f"`diffusionad release list --repository {repository}` names its categories"
            )


def named_models(repository: Path, names: Sequence[str]) -> list[str]:
    """Give the names of models to load; for "*", where other things lie among them, every one."""
    found = kinds(repository)
    if list(names) != [ALL_MODELS] or FolderKind.STRAY not in found.values():
        return list(names)
    return [name for name, kind in found.items() if kind is not FolderKind.STRAY]


def check_encryption(certificate: Path, key: Path, client_ca: Path | None) -> None:
    """Raise `CredentialsError` unless a server can speak TLS with these files, now."""
    if client_ca is not None:
        check_authorities(read_public(client_ca, "the authority's certificate"), client_ca)
    read_private(key, "the server's key")
    pem = read_public(certificate, "the server's certificate")
    check_pair(pem, certificate, key, whose="the server's")


def check_collector(url: str) -> None:
    """Raise `ServeError` unless spans can be sent to that address."""
    parts = urlsplit(url)
    try:
        there = parts.scheme == "http" and parts.hostname and parts.port
    except ValueError:  # of a port out of range
        there = None
    if not there:
        raise ServeError(
            f"--trace-url {url}: not the address of a collector; give that of its OTLP receiver "
            "over HTTP, such as http://127.0.0.1:4318/v1/traces"
        )


def choose_config(repository: Path, devices: Path = Path("/dev")) -> str | None:
    """Choose the configuration that suits this host; None is each model's `config.pbtxt`."""
    for_cpus = any(repository.glob(f"*/configs/{CPU}.pbtxt"))
    return CPU if for_cpus and not _has_gpu(devices) else None


def _has_gpu(devices: Path) -> bool:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    on_windows = (devices / "dxg").exists()  # its Linux subsystem has no other sign of a GPU
    return not hidden and (on_windows or any(devices.glob("nvidia[0-9]*")))


def check_config_name(repository: Path, name: str) -> None:
    """Raise `ServeError` unless a model has a configuration of that name.

    Triton itself would serve the default without a word.
    """
    found = sorted({path.stem for path in repository.glob("*/configs/*.pbtxt")})
    if name not in found:
        raise ServeError(
            f"{repository}: no model has a configuration named {name!r} (configs/{name}.pbtxt); "
            f"there are: {', '.join(found) or 'none'}"
        )
