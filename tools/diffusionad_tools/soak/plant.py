"""The server of a soak: a copy of a repository, two releases to go between, and its restarts."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from diffusionad_client.contract import encoded_model
from diffusionad_client.sdk.client import Client
from diffusionad_client.sdk.connection import Connection
from diffusionad_tools.errors import ReleaseError
from diffusionad_tools.release.procedure import Procedure
from diffusionad_tools.release.promote import promote
from diffusionad_tools.release.repository import categories, read_category
from diffusionad_tools.release.rollout import Fleet, RollOut
from diffusionad_tools.release.thresholds import set_thresholds
from diffusionad_tools.server import linux
from diffusionad_tools.server.checks import choose_config
from diffusionad_tools.server.process import (
    ExplicitControl,
    ServerSettings,
    TritonProcess,
    ready_server,
)
from diffusionad_tools.server.site import Site, open_site
from diffusionad_tools.soak.tally import Expected

_LOAD_S = 300.0


class Plant:
    """A server on which things happen. Made by `open_plant`, which also stops it."""

    def __init__(self, site: Site, category: str, key: str, versions: tuple[int, int]) -> None:
        self._site = site
        self.category = category
        self._key = key
        self._forms = [category, encoded_model(category)]
        self._versions = versions
        self.lives = 0
        self.failed_starts = 0  # after which another one did not fail
        self._server = self._start()

    @property
    def url(self) -> str:
        """Where gRPC answers."""
        return self._site.grpc_url

    def promote(self) -> None:
        """Serve the other one of the two releases. Raises `ReleaseError` if it is not served."""
        repository = self._site.settings.repository
        served = read_category(repository, self.category).release().version
        (other,) = {*self._versions} - {served}
        fleet = Fleet(Connection(self.url, timeout=_LOAD_S, admin_key=self._key))
        rollout = RollOut(repository, fleet)
        promote(repository, self.category, other, Procedure(on_switch=rollout))
        rollout.finish(self.category)
        if not rollout.complete:
            raise ReleaseError("; ".join(str(server.problem) for server in rollout.servers))

    def restart(self) -> None:
        """End the server in order, and start another one in its place."""
        self._server.stop()
        self._server = self._start()

    def fault(self) -> str | None:
        """Say what is wrong with the server; None if nothing is."""
        return self._server.fault()

    def processes(self) -> tuple[int, list[int]]:
        """Give the ids of tritonserver and of the processes of its models."""
        return self._server.pid, list(linux.children(self._server.pid))

    def stop(self) -> None:
        """End it."""
        self._server.stop()

    def _start(self) -> TritonProcess:
        again = self._forms if self.lives else None
        server = ready_server(self._site, self._goes_on, again=again)
        self.lives += 1
        return server

    def _goes_on(self, _: TritonProcess) -> bool:
        """Try again, as `serve` does: Triton 2.51 may abort where there is far too much to do."""
        self.failed_starts += 1
        return True


@contextmanager
def open_plant(repository: Path, category: str | None, folder: Path) -> Iterator[Plant]:
    """Copy a repository into `folder` and serve a category of it.

    Where it has one release only, the copy gets another one, with other
    thresholds. Raises a `DiffusionADError`.
    """
    copy = folder / "repository"
    shutil.copytree(repository, copy)
    name = category or _only_category(copy)
    found = read_category(copy, name)
    served = found.release()
    if len(found.ensembles) == 1:
        raise ReleaseError(
            f"{name} in {repository} has no encoded form, which a soak sends files to; add its "
            "bundle with `diffusionad release add`"
        )
    others = [release.version for release in found.releases if release.version != served.version]
    if not others:
        limits = served.metadata.thresholds
        changed = set_thresholds(copy, name, accept=limits.accept / 2)
        if not changed.changed:
            raise ReleaseError(
                f"{name} in {repository} has one release, and none with other thresholds can be "
                "made of it; add another"
            )
        others = [changed.release.version]
    key = secrets.token_hex(16)
    settings = ServerSettings(
        repository=copy,
        config_name=choose_config(copy),
        explicit=ExplicitControl(load=[name, encoded_model(name)], admin_key=key),
    )
    with open_site(settings) as site:
        plant = Plant(site, name, key, (served.version, others[-1]))
        try:
            yield plant
        finally:
            plant.stop()


def golden_run(plant: Plant, images: Mapping[str, Path]) -> dict[tuple[str, str], Expected]:
    """Ask for every image, one by one, under both releases, with nothing else going on."""
    found = {}
    for _ in range(2):
        with Client(plant.url, plant.category, timeout=_LOAD_S) as client:
            for name, path in images.items():
                answer = client.inspect(path, anomaly_map=False, reconstruction=False)
                found[(answer.release, name)] = Expected(
                    answer.score,
                    answer.verdict.value,
                    answer.thresholds.accept,
                    answer.thresholds.reject,
                )
        plant.promote()
    return found


def _only_category(repository: Path) -> str:
    names = categories(repository)
    if len(names) != 1:
        raise ReleaseError(
            f"{repository} holds {', '.join(names) or 'no category'}; name one with --model"
        )
    return names[0]
