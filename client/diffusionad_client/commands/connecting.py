"""The options that say how servers are reached, with their variables of the environment.

A flag goes before the environment, that before the default. Secrets come in
files: what is on a command line, every user of the machine can read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from diffusionad_client.sdk.addresses import read_servers
from diffusionad_client.sdk.admin_key import read_admin_key
from diffusionad_client.sdk.connection import Connection

ENVIRONMENT = "DIFFUSIONAD_"

_FILE = click.Path(path_type=Path)
_NAMES = (
    *("ca_cert", "client_cert", "client_key", "tls", "token_file"),
    *("header", "header_file", "insecure", "admin_key_file"),
)


def variable(name: str) -> str:
    """Name the variable of the environment that stands in for an option."""
    return ENVIRONMENT + name.upper()


def _file(name: str, help: str) -> Callable[..., Any]:
    return click.option(
        f"--{name.replace('_', '-')}",
        type=_FILE,
        metavar="FILE",
        envvar=variable(name),
        show_envvar=True,
        help=help,
    )


_OPTIONS = (
    _file("ca_cert", "Speak TLS, and trust servers that this PEM certificate vouches for."),
    _file("client_cert", "Speak TLS, and show this PEM certificate to the server."),
    _file("client_key", "The client certificate's key, as PEM."),
    click.option(
        "--tls", is_flag=True, help="Speak TLS, and trust servers that this machine trusts."
    ),
    _file("token_file", "Send the bearer token in this file with every call."),
    click.option(
        "--header",
        multiple=True,
        metavar="NAME=VALUE",
        help="Send this header with every call. May be repeated. No secrets: see --header-file.",
    ),
    click.option(
        "--header-file",
        multiple=True,
        metavar="NAME=FILE",
        help="Send this header, with the value in the file. May be repeated.",
    ),
    click.option(
        "--insecure", is_flag=True, help="Send a token or header in plain text to other machines."
    ),
    _file("admin_key_file", "The server's admin key, for one with explicit model control."),
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value that a command used, and where it came from."""

    name: str
    value: Any  # never a secret
    source: str  # "--url", "DIFFUSIONAD_URL" or "default"


@dataclass(frozen=True, kw_only=True)
class HowToReach:
    """All that was said of how servers are reached, but for which they are."""

    ca_cert: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    tls: bool = False
    token_file: Path | None = None
    header: Mapping[str, str] = field(default_factory=dict, repr=False)
    header_file: Mapping[str, Path] = field(default_factory=dict)
    insecure: bool = False
    admin_key_file: Path | None = None

    def connection(self, url: str | Sequence[str], timeout: float) -> Connection:
        """Make the connection to servers. Raises a `DiffusionADError`."""
        return Connection(
            url,
            timeout=timeout,
            ca_cert=self.ca_cert,
            client_cert=self.client_cert,
            client_key=self.client_key,
            tls=self.tls,
            token_file=self.token_file,
            headers=self.header,
            header_files=self.header_file,
            insecure=self.insecure,
            admin_key=self._admin_key(),
        )

    def locally(self, url: str, timeout: float) -> Connection:
        """Make the connection to a server that was started here for the run, in plain text."""
        return Connection(url, timeout=timeout, admin_key=self._admin_key())

    def _admin_key(self) -> str | None:
        return None if self.admin_key_file is None else read_admin_key(self.admin_key_file)


def with_reach(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options. `take_reach` makes one value of them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_reach(options: dict[str, Any]) -> HowToReach:
    """Take the values of these options out of `options`."""
    taken = {name: options.pop(name) for name in _NAMES}
    taken["header"] = _pairs("--header", "NAME=VALUE", taken["header"])
    files = _pairs("--header-file", "NAME=FILE", taken["header_file"])
    taken["header_file"] = {name: Path(file) for name, file in files.items()}
    return HowToReach(**taken)


def split_urls(urls: Sequence[str]) -> tuple[str, ...]:
    """Give each server of several --url once; one of them may name several, with commas."""
    return tuple(dict.fromkeys(server for url in urls for server in read_servers(url)))


def source_of(name: str) -> str:
    """Say where the running command has an option's value from."""
    context = click.get_current_context()
    source = context.get_parameter_source(name)
    if source is ParameterSource.COMMANDLINE:
        return f"--{name.replace('_', '-')}"
    return variable(name) if source is ParameterSource.ENVIRONMENT else "default"


def settings_used(reach: HowToReach, **others: Any) -> list[Setting]:
    """List what the running command goes by; of headers the names alone."""
    values = {
        **others,
        **{name: getattr(reach, name) for name in _NAMES},
        "header": sorted(reach.header),
        "header_file": {name: str(path) for name, path in sorted(reach.header_file.items())},
    }
    return [
        Setting(
            name=name,
            value=str(value) if isinstance(value, Path) else value,
            source=source_of(name),
        )
        for name, value in values.items()
        if value or name in others
    ]


def _pairs(option: str, form: str, given: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not (name and equals and value):
            # Not the text itself: its value may be a secret.
            raise click.UsageError(f"{option} takes {form}, with '=' between the two")
        if name.lower() in pairs:
            raise click.UsageError(f"{option} {name.lower()!r} is given more than once")
        pairs[name.lower()] = value
    return pairs
