"""Explicit model control: what a real Triton loads, when, and for whom."""

from __future__ import annotations

import json
import shutil
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton
from click.testing import CliRunner, Result
from tritonclient.utils import InferenceServerException

from diffusionad_client.cli import main
from diffusionad_client.errors import (
    AccessDeniedError,
    ModelLoadError,
    ModelNotFoundError,
    ServeError,
)
from diffusionad_client.local_server import READY_PREFIX
from diffusionad_client.sdk.admin_key import ensure_admin_key, read_admin_key
from diffusionad_client.sdk.client import Client
from diffusionad_tools.server.checks import check_models
from diffusionad_tools.server.process import (
    ExplicitControl,
    ServerSettings,
    TritonProcess,
    running_server,
)

CATEGORIES = ("widget", "gadget", "sprocket")


@dataclass(frozen=True)
class Explicit:
    """A server that began with "widget" alone; the others lie beside it."""

    server: TritonProcess
    repository: Path
    key_file: Path

    def client(self, model: str | None = None) -> Client:
        key = read_admin_key(self.key_file)
        return Client(self.server.grpc_url, model, retry=False, admin_key=key)

    def models(self, *arguments: str) -> Result:
        where = ("--url", self.server.grpc_url, "--admin-key-file", str(self.key_file))
        return CliRunner().invoke(main, ["models", *arguments, *where])


@pytest.fixture(scope="module")
def explicit(
    tmp_path_factory: pytest.TempPathFactory, bundles_in: Any, publish_ungated: Any
) -> Iterator[Explicit]:
    folder = tmp_path_factory.mktemp("explicit")
    make_bundle = bundles_in(folder / "bundles")
    for category in CATEGORIES:
        publish_ungated(make_bundle(category=category), folder / "repository")
    key_file = folder / "admin.key"
    settings = ServerSettings(
        repository=folder / "repository",
        http_port=0,
        log_file=folder / "triton.log",
        explicit=ExplicitControl(load=["widget"], admin_key=ensure_admin_key(key_file)),
    )
    with running_server(settings) as server:
        yield Explicit(server, folder / "repository", key_file)


@pytest.mark.server
def test_only_what_was_named_is_loaded_and_the_server_is_ready(explicit: Explicit) -> None:
    with explicit.client() as client:
        assert client.health().ready
        found = client.catalogue()
    assert "widget" in [model.model for model in found.served]
    assert ("sprocket", "NOT_LOADED", "") in [(m.model, m.state, m.reason) for m in found.idle]


@pytest.mark.server
def test_a_category_is_loaded_answers_and_is_unloaded_again(
    explicit: Explicit, handmade_model: Any
) -> None:
    model = handmade_model()
    (image,) = model.images(1)

    loaded = explicit.models("load", "gadget")
    assert loaded.exit_code == 0, loaded.output
    with explicit.client("gadget") as client:
        assert client.inspect(image).score == pytest.approx(model.answer(image)[0], abs=1e-6)

    unloaded = explicit.models("unload", "gadget")
    assert unloaded.exit_code == 0, unloaded.output
    with explicit.client("gadget") as client, pytest.raises(ModelNotFoundError):
        client.inspect(image)
    with explicit.client("widget") as client:
        assert client.inspect(image).model == "widget"


@pytest.mark.server
@pytest.mark.parametrize("key", [None, "not-the-key-of-it"])
def test_without_the_key_nothing_of_the_repository_is_told_or_changed(
    explicit: Explicit, key: str | None
) -> None:
    with Client(explicit.server.grpc_url, retry=False, admin_key=key) as client:
        for call in (client.catalogue, lambda: client.load("gadget"), lambda: client.unload("x")):
            with pytest.raises(AccessDeniedError, match="file with --admin-key-file"):
                call()


@pytest.mark.server
def test_http_is_closed_as_grpc_is_and_opens_with_the_same_key(explicit: Explicit) -> None:
    key = read_admin_key(explicit.key_file)
    url = f"http://{explicit.server.http_url}/v2/repository/index"
    request = urllib.request.Request(url, data=b"{}")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    refused.value.close()
    assert refused.value.code == 403
    request.add_header("diffusionad-admin-key", key)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert "widget" in {entry["name"] for entry in json.load(answer)}


@pytest.mark.server
def test_not_even_the_admin_key_opens_shared_memory_tracing_and_logging(
    explicit: Explicit,
) -> None:
    key = read_admin_key(explicit.key_file)
    headers = {f"triton-grpc-protocol-{name}": key for name in ("diffusionad-admin-key",)}
    with triton.InferenceServerClient(explicit.server.grpc_url) as raw:
        for call in (
            raw.get_system_shared_memory_status,
            raw.get_cuda_shared_memory_status,
            raw.get_trace_settings,
            raw.get_log_settings,
        ):
            with pytest.raises(InferenceServerException, match="restricted"):
                call(headers=headers)


@pytest.mark.server
def test_the_key_is_not_in_the_servers_log(explicit: Explicit) -> None:
    assert read_admin_key(explicit.key_file) not in explicit.server.log_file.read_text()


@pytest.mark.server
def test_a_category_that_cannot_be_loaded_says_why_and_takes_no_other_with_it(
    explicit: Explicit, handmade_model: Any
) -> None:
    config = explicit.repository / "sprocket__segmentation" / "config.pbtxt"
    whole = config.read_text()
    config.write_text(whole.replace("dims: 1\n", "dims: 2\n"))
    with explicit.client() as client:
        with pytest.raises(ModelLoadError) as failed:
            client.load("sprocket")
        assert "output 'SCORE' has shape [-1, 2] in config.pbtxt" in str(failed.value)
        assert "model.py" not in str(failed.value)
        (idle,) = (m for m in client.catalogue().idle if m.model == "sprocket")
        assert idle.state == "UNAVAILABLE"
        assert "sprocket__segmentation: Internal: ModelLoadError" in idle.reason

        assert client.health().ready  # or a load balancer would drop all categories
        (image,) = handmade_model().images(1)
        assert client.inspect(image, model="widget").model == "widget"

        config.write_text(whole)
        assert client.load("sprocket").version == "1"


@pytest.mark.server
def test_a_graph_that_was_cut_short_is_not_loaded_and_harms_no_other_category(
    explicit: Explicit, handmade_model: Any
) -> None:
    graph = explicit.repository / "sprocket__segmentation" / "1" / "model.onnx"
    whole = graph.read_bytes()
    (image,) = handmade_model().images(1)
    with explicit.client() as client:
        client.unload("sprocket")
        try:
            graph.write_bytes(whole[: len(whole) // 2])
            with pytest.raises(ModelLoadError) as failed:
                client.load("sprocket")
            assert "model.onnx" in str(failed.value)
            assert "Traceback" not in str(failed.value)
            assert client.health().ready
            assert client.inspect(image, model="widget").model == "widget"
        finally:
            graph.write_bytes(whole)
        assert client.load("sprocket").version == "1"
        assert client.inspect(image, model="sprocket").model == "sprocket"


@pytest.mark.server
@pytest.mark.parametrize("name", ["nonesuch", "widget__encoded"])
def test_loading_what_is_not_there_says_so(explicit: Explicit, name: str) -> None:
    result = explicit.models("load", name)
    assert result.exit_code == 1
    assert "no such model in the server's repository" in result.stderr


@pytest.mark.server
def test_a_server_without_explicit_control_says_how_to_get_it(
    explicit: Explicit, tmp_path: Path
) -> None:
    for folder in explicit.repository.glob("widget*"):
        shutil.copytree(folder, tmp_path / "repository" / folder.name)
    with (
        running_server(ServerSettings(repository=tmp_path / "repository")) as server,
        Client(server.grpc_url) as client,
        pytest.raises(AccessDeniedError, match="--model-control-mode explicit"),
    ):
        client.load("widget")


@pytest.mark.server
def test_serve_makes_the_key_and_loads_what_it_is_told(
    start_serve: Any, explicit: Explicit, tmp_path: Path
) -> None:
    key_file = tmp_path / "admin.key"
    command = start_serve(
        explicit.repository,
        *("--model-control-mode", "explicit", "--load-model", "gadget"),
        *("--admin-key-file", str(key_file)),
    )
    ready = command.read_line()
    assert ready.startswith(READY_PREFIX), command.finish()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    key = read_admin_key(key_file)
    with Client(ready.removeprefix(READY_PREFIX).strip(), admin_key=key) as client:
        found = client.catalogue()
    assert found.names == ["gadget"]


def test_a_model_to_load_that_is_not_there_is_named_before_triton_starts(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="--load-model nonesuch: .* has no such model"):
        check_models(tmp_path, ["nonesuch"])


def test_all_models_are_loaded_with_a_star_that_stands_alone(tmp_path: Path) -> None:
    check_models(tmp_path, ["*"])
    with pytest.raises(ServeError, match="give it alone"):
        check_models(tmp_path, ["*", "widget"])


@pytest.mark.parametrize("option", ["--load-model", "--admin-key-file"])
def test_options_of_explicit_control_are_refused_without_it(tmp_path: Path, option: str) -> None:
    arguments = ["serve", "--repository", str(tmp_path), option, "x"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "are for --model-control-mode explicit" in result.stderr
