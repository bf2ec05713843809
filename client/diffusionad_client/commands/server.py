"""The options of every command that reaches a server, and where that server is then."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from diffusionad_client.commands.connecting import (
    HowToReach,
    source_of,
    split_urls,
    take_reach,
    variable,
    with_reach,
)
from diffusionad_client.commands.options import SECONDS
from diffusionad_client.sdk.connection import CALL_S, DEFAULT_URL, Connection

_Command = TypeVar("_Command", bound=Callable[..., Any])

model_option = click.option(
    "--model",
    metavar="NAME",
    envvar=variable("model"),
    show_envvar=True,
    help="Category; default: the server's only one.",
)
_repository_option = click.option(
    "--repository",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Serve this model repository for the run instead (needs diffusionad-tools).",
)


@dataclass(frozen=True, kw_only=True)
class ServerChoice:
    """The servers that a command was told of: those that run, or one to start for the run."""

    servers: tuple[str, ...]  # their addresses; empty: none was named
    timeout: float
    reach: HowToReach
    repository: Path | None = None  # None: the servers at those addresses
    is_flagged: bool = False  # they were named on the command line, not by the environment

    @property
    def is_made(self) -> bool:
        """Tell whether a server was named at all."""
        return bool(self.servers) or self.repository is not None

    @property
    def connection(self) -> Connection:
        """How the servers that run are reached."""
        return self.reach.connection(self.servers or DEFAULT_URL, self.timeout)

    @contextmanager
    def open(self) -> Iterator[Connection]:
        """Give the way to the server; one of a repository runs while the context lasts."""
        if self.repository is None:
            yield self.connection
            return
        from diffusionad_client.local_server import serve_repository

        with serve_repository(self.repository) as url:
            yield self.reach.locally(url, self.timeout)


def reaches_server(
    *,
    repository: bool = False,
    default_url: str | None = DEFAULT_URL,
    timeout: float = CALL_S,
    timeout_help: str = "How long to wait for an answer.",
) -> Callable[[_Command], Callable[..., Any]]:
    """Give a command the options of its servers, as one `server`.

    With `repository` it may be given a folder to serve for the run instead of
    a URL, and not both.
    """
    url_option = click.option(
        "--url",
        multiple=True,
        metavar="HOST:PORT",
        envvar=variable("url"),
        show_envvar=True,
        help="The server's gRPC address. Of several servers, with commas or repeated."
        + ("" if default_url is None else f"  [default: {default_url}]"),
    )
    timeout_option = click.option(
        "--timeout",
        type=SECONDS,
        default=timeout,
        show_default=True,
        metavar="SECONDS",
        envvar=variable("timeout"),
        show_envvar=True,
        help=timeout_help,
    )

    def decorate(command: _Command) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_server(
            *args: Any,
            url: tuple[str, ...],
            timeout: float,
            repository: Path | None = None,
            **others: Any,
        ) -> Any:
            is_flagged = source_of("url") == "--url"
            if is_flagged and repository is not None:
                raise click.UsageError("give --url or --repository, not both")
            named = url or (() if default_url is None else (default_url,))
            server = ServerChoice(
                servers=() if repository is not None else split_urls(named),
                timeout=timeout,
                reach=take_reach(others),
                repository=repository,
                is_flagged=is_flagged or repository is not None,
            )
            return command(*args, server=server, **others)

        options = [url_option, *([_repository_option] if repository else []), timeout_option]
        with_options = with_reach(with_server)
        for option in reversed(options):
            with_options = option(with_options)
        return with_options

    return decorate
