"""What a pod verifies before its server starts: the init container's own command, on real files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from diffusionad_client.cli import main

ROOT = Path(__file__).parents[2]
MODEL = "demo_plate"


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words)])


def pod_of(documents: list[Any]) -> Any:
    (deployment,) = (
        d for d in documents if d["kind"] == "Deployment" and d["metadata"]["name"] == "plant"
    )
    return deployment["spec"]["template"]


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path]:
    """The shipped model, and a release of it with other thresholds that a key has signed."""
    models, key = tmp_path / "models", tmp_path / "release.key"
    shutil.copytree(ROOT / "model_repository", models, ignore=shutil.ignore_patterns("__pycache__"))
    assert run("release", "keygen", key).exit_code == 0
    options = ("--repository", models, "--key", key)
    said = run("release", "thresholds", MODEL, "--accept", 0.01, *options)
    assert said.exit_code == 0, said.output
    return models, key.with_name("release.key.pub")


def test_a_pod_starts_on_what_a_trusted_key_signed_and_on_nothing_else(
    render: Callable[..., list[Any]], in_place: Callable[..., str], signed: tuple[Path, Path]
) -> None:
    models, public = signed
    (container,) = pod_of(render("gpu"))["spec"]["initContainers"]
    places = {"/models": str(models), "/run/trusted/release.key.pub": str(public)}
    assert container["command"] == ["diffusionad"]
    command = [in_place(word, places) for word in container["args"]]
    said = run(*command)
    assert said.exit_code == 0, said.output
    assert "those that were published, signed with " in said.stdout

    assert run("release", "promote", MODEL, 1, "--repository", models).exit_code == 0
    unsigned = run(*command)
    assert unsigned.exit_code == 1
    assert f"{MODEL} version 1: is not signed" in unsigned.stderr

    graph = next((models / f"{MODEL}__segmentation").glob("*/model.onnx"))
    with graph.open("ab") as changed:
        changed.write(b" ")
    without_keys = [word for word in command if not word.startswith("--trusted-key")]
    altered = run(*without_keys)
    assert altered.exit_code == 1
    assert str(graph) in altered.stderr


def test_models_of_a_bucket_are_verified_when_they_are_there(
    render: Callable[..., list[Any]],
) -> None:
    image = "verify.image=registry.plant/cpu@sha256:" + "b" * 64
    pod = pod_of(render("mutual", "--set", f"verify.enabled=true,{image}"))["spec"]
    names = [container["name"] for container in pod["initContainers"]]
    assert names == ["repository", "verify"]


def test_the_keys_are_mounted_where_they_are_named_and_other_keys_restart_the_pods(
    render: Callable[..., list[Any]],
) -> None:
    documents = render("gpu")
    (keys,) = (d for d in documents if d["metadata"]["name"] == "plant-trusted")
    pod = pod_of(documents)
    volume = next(v for v in pod["spec"]["volumes"] if v["name"] == "trusted")
    assert volume["configMap"]["name"] == keys["metadata"]["name"]
    assert [*keys["data"]] == ["release.key.pub"]
    assert keys["data"]["release.key.pub"].startswith("-----BEGIN PUBLIC KEY-----\n")
    other = "verify.trustedKeys.b=-----BEGIN PUBLIC KEY-----"
    assert (
        pod["metadata"]["annotations"]
        != pod_of(render("gpu", "--set", other))["metadata"]["annotations"]
    )


def test_the_embedded_server_verifies_by_itself(render: Callable[..., list[Any]]) -> None:
    key = "verify.trustedKeys.a=-----BEGIN PUBLIC KEY-----"
    pod = pod_of(render("embedded", "--set", key))["spec"]
    (container,) = pod["containers"]
    assert "initContainers" not in pod
    assert {"--verify", "--trusted-key=/run/trusted/a", "--log-format=json"} <= {*container["args"]}
    assert "/run/trusted" in [mount["mountPath"] for mount in container["volumeMounts"]]
