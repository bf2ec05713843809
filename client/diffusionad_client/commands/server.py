"""The options of every command that reaches a server, and where that server is then."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from diffusionad_client.commands.options import SECONDS
from diffusionad_client.sdk.admin_key import read_admin_key
from diffusionad_client.sdk.connection import CALL_S, DEFAULT_URL, Connection

_Command = TypeVar("_Command", bound=Callable[..., Any])

admin_key_option = click.option(
    "--admin-key-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The server's admin key, for one with explicit model control.",
)
_repository_option = click.option(
    "--repository",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Serve this model repository for the run instead (needs diffusionad-tools).",
)


@dataclass(frozen=True, kw_only=True)
class ServerChoice:
    """The server that a command was told of: one that runs, or one to start for the run."""

    url: str | None
    timeout: float
    admin_key_file: Path | None
    repository: Path | None = None  # None: the server at the URL

    @property
    def is_made(self) -> bool:
        """Tell whether a server was named at all."""
        return self.url is not None or self.repository is not None

    @property
    def connection(self) -> Connection:
        """How the server at the URL is reached."""
        return self._reached_at(DEFAULT_URL if self.url is None else self.url)

    @contextmanager
    def open(self) -> Iterator[Connection]:
        """Give the way to the server; one of a repository runs while the context lasts."""
        if self.repository is None:
            yield self.connection
            return
        from diffusionad_client.local_server import serve_repository

        with serve_repository(self.repository) as url:
            yield self._reached_at(url)

    def _reached_at(self, url: str) -> Connection:
        key = None if self.admin_key_file is None else read_admin_key(self.admin_key_file)
        return Connection(url, timeout=self.timeout, admin_key=key)


def reaches_server(
    *,
    repository: bool = False,
    default_url: str | None = DEFAULT_URL,
    timeout: float = CALL_S,
    timeout_help: str = "How long to wait for an answer.",
) -> Callable[[_Command], Callable[..., Any]]:
    """Give a command the options of its server, as one `server`.

    With `repository` it may be given a folder to serve for the run instead of
    a URL, and not both.
    """
    url_option = click.option(
        "--url",
        metavar="HOST:PORT",
        help="The server's gRPC address."
        + ("" if default_url is None else f"  [default: {default_url}]"),
    )
    timeout_option = click.option(
        "--timeout",
        type=SECONDS,
        default=timeout,
        show_default=True,
        metavar="SECONDS",
        help=timeout_help,
    )

    def decorate(command: _Command) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_server(
            *args: Any,
            url: str | None,
            timeout: float,
            admin_key_file: Path | None,
            repository: Path | None = None,
            **others: Any,
        ) -> Any:
            if url is not None and repository is not None:
                raise click.UsageError("give --url or --repository, not both")
            server = ServerChoice(
                url=default_url if url is None and repository is None else url,
                timeout=timeout,
                admin_key_file=admin_key_file,
                repository=repository,
            )
            return command(*args, server=server, **others)

        options = [url_option, *([_repository_option] if repository else [])]
        with_options: Callable[..., Any] = with_server
        for option in reversed([*options, timeout_option, admin_key_option]):
            with_options = option(with_options)
        return with_options

    return decorate
