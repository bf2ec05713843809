"""What lies in a repository and is no model: named, served past, never touched."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from diffusionad_client.cli import main
from diffusionad_client.local_server import READY_PREFIX
from diffusionad_client.sdk.admin_key import ensure_admin_key
from diffusionad_client.sdk.client import Client
from diffusionad_client.sdk.transports.grpc import GrpcTransport
from diffusionad_tools.folders import FolderKind, kinds, strays
from diffusionad_tools.release.model_config import ensemble_config, render
from diffusionad_tools.release.repository import find_release
from diffusionad_tools.server.process import ExplicitControl, ServerSettings, running_server

STRAYS = [".git", ".snapshot", "@eaDir", "backup", "gone", "lost+found"]


def release(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["release", *map(str, arguments)])


@pytest.fixture
def repository(make_bundle: Any, publish_ungated: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    publish_ungated(make_bundle(images=6), folder, encoded=True)
    for name in ("lost+found", "@eaDir/widget@SynoEAStream", ".git/objects"):
        (folder / name).mkdir(parents=True)
    old = folder / ".snapshot" / "daily" / "widget"
    old.mkdir(parents=True)
    (old / "config.pbtxt").write_text("of yesterday")
    (folder / "backup").mkdir()
    (folder / "backup" / "widget.tar").write_text("somebody's")
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    (folder / "notes.txt").write_text("mine")
    return folder


def stray_content(repository: Path) -> dict[Path, bytes | None]:
    return {
        path: path.read_bytes() if path.is_file() else None
        for name in STRAYS
        for path in (repository / name, *(repository / name).rglob("*"))
        if os.path.lexists(path)
    }


def test_strays_are_told_from_our_models_whole_or_not_and_from_those_of_others(
    repository: Path,
) -> None:
    metadata, steps = (
        find_release(repository, "widget").metadata,
        find_release(repository, "widget").step_versions,
    )
    theirs = ensemble_config(metadata, 1, steps)
    theirs.name = "theirs"
    (repository / "theirs").mkdir()
    (repository / "theirs" / "config.pbtxt").write_text(render(theirs))
    (repository / "widget__segmentation" / "config.pbtxt").unlink()
    (repository / "widget" / "config.pbtxt").unlink()
    (repository / "image_decoding_32" / "config.pbtxt").unlink()
    found = kinds(repository)
    assert [name for name, kind in found.items() if kind is FolderKind.STRAY] == STRAYS
    assert [name for name, kind in found.items() if kind is FolderKind.FOREIGN] == ["theirs"]
    assert "notes.txt" not in found


@pytest.mark.server
def test_serve_names_strays_and_serves_past_them(
    repository: Path, start_serve: Any, handmade_model: Any
) -> None:
    before = stray_content(repository)
    command = start_serve(repository)
    ready = command.read_line()
    assert ready.startswith(READY_PREFIX)
    (image,) = handmade_model().images(1)
    with Client(ready.removeprefix(READY_PREFIX).strip(), "widget") as client:
        assert client.inspect(image).release == find_release(repository, "widget").metadata.release
    command.process.terminate()
    _, stderr = command.finish()
    assert f"Passing over {', '.join(STRAYS)}: no model of Triton's" in stderr
    assert stray_content(repository) == before


@pytest.mark.server
@pytest.mark.slow
def test_explicit_control_loads_all_but_strays_and_what_is_added_later(
    repository: Path, make_bundle: Any, publish_ungated: Any, tmp_path: Path
) -> None:
    (repository / "gone").unlink()  # over a link to nowhere Triton's own list stumbles
    key = ensure_admin_key(tmp_path / "admin.key")
    explicit = ExplicitControl(load=["*"], admin_key=key)
    with (
        running_server(ServerSettings(repository=repository, explicit=explicit)) as server,
        closing(GrpcTransport(server.grpc_url, admin_key=key)) as transport,
    ):
        publish_ungated(make_bundle(category="gadget"), repository)
        transport.load("gadget", timeout=60)
        ready = {entry.model for entry in transport.index(timeout=30) if entry.ready}
    assert {"widget", "widget__encoded", "gadget"} <= ready


@pytest.mark.server
def test_releases_pass_and_change_beside_strays_which_stay_as_they_are(repository: Path) -> None:
    before = stray_content(repository)
    named = f"Passing over {', '.join(STRAYS)}"
    validated = release("validate", "--repository", repository)
    assert validated.exit_code == 0, validated.output
    assert named in validated.stderr
    changed = release("thresholds", "widget", "--accept", 0.1, "--repository", repository)
    assert changed.exit_code == 0, changed.output
    assert named in changed.stderr
    assert stray_content(repository) == before


@pytest.mark.parametrize("model", ["image_decoding_32", "widget__encoded", "widget"])
def test_a_model_of_ours_without_its_configuration_is_no_stray_but_a_fault(
    repository: Path, model: str
) -> None:
    (repository / model / "config.pbtxt").unlink()
    assert strays(repository) == STRAYS
    for command in (("validate",), ("thresholds", "widget", "--accept", 0.1)):
        result = release(*command, "--repository", repository)
        assert result.exit_code == 1
        assert f"{model}/config.pbtxt: missing" in result.output


def test_a_folder_that_may_not_be_read_is_a_stray(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As lost+found is to all but root, for whom this test may run."""
    real = Path.is_file

    def is_file(self: Path) -> bool:
        if "lost+found/" in str(self):
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(Path, "is_file", is_file)
    assert strays(repository) == STRAYS
