"""The chart: what real helm renders is valid and safe, and what does not fit is refused."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from diffusionad_client.cli import main
from diffusionad_tools.server.binaries import locate

ROOT = Path(__file__).parents[2]
CHART = ROOT / "tools" / "deploy" / "chart"
VARIANTS = ("embedded", "gpu", "mutual")
KUBERNETES = ("1.33.0", "1.34.0", "1.35.0")
CUSTOM = json.loads((Path(__file__).parent / "custom_resources.json").read_text(encoding="utf-8"))


def variant(name: str) -> str:
    return str(CHART / "ci" / f"{name}-values.yaml")


def server_of(documents: list[Any]) -> Any:
    pod = next(
        d["spec"]["template"]["spec"]
        for d in documents
        if d["kind"] == "Deployment" and d["metadata"]["name"] == "plant"
    )
    return pod["containers"][0]


@pytest.mark.parametrize("name", VARIANTS)
def test_three_versions_of_kubernetes_take_all_that_is_rendered(
    render: Callable[..., list[Any]], name: str
) -> None:
    documents = render(name)
    assert {"Deployment", "Service", "PodDisruptionBudget"} <= {d["kind"] for d in documents}
    for document in documents:
        if document["apiVersion"] in CUSTOM:
            jsonschema.validate(document, CUSTOM[document["apiVersion"]][document["kind"]])
            continue
        for version in KUBERNETES:
            kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_of_custom_resources_refuse_what_their_operators_would(
    render: Callable[..., list[Any]],
) -> None:
    scaled = next(d for d in render("gpu") if d["kind"] == "ScaledObject")
    schema = CUSTOM[scaled["apiVersion"]]["ScaledObject"]
    scaled["spec"]["triggers"][0]["metadata"]["threshold"] = 200  # KEDA takes strings only
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(scaled, schema)


def test_helm_finds_nothing_to_complain_of(helm: Callable[..., Any]) -> None:
    for name in VARIANTS:
        said = helm("lint", "--strict", str(CHART), "--values", variant(name))
        assert said.returncode == 0, said.stdout


def test_kubectl_builds_from_what_helm_renders(
    render: Callable[..., list[Any]], find_program: Callable[..., str], tmp_path: Path
) -> None:
    kubectl = find_program("kubectl", "`make deploy-tools` puts it into .venv/bin")
    documents = render("gpu")
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(documents))
    (tmp_path / "kustomization.yaml").write_text("resources: [all.yaml]\nnamePrefix: a-\n")
    built = subprocess.run(
        [kubectl, "kustomize", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    names = {d["metadata"]["name"] for d in yaml.safe_load_all(built.stdout)}
    assert names == {f"a-{d['metadata']['name']}" for d in documents}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("replicas=-1", "replicas"),
        ("image.digest=latest", "digest"),
        ("image.digest=", "pin what you tested"),
        ("typo=1", "typo"),
        ("drain.sleepSeconds=0", "sleepSeconds"),
        ("gateway.bodyMegabytes=0", "bodyMegabytes"),
        ("gateway.image=nginx:latest", "image"),
        ("gpu.count=0", "set hostConfig to cpu or gpu.count to 1"),
        ("server=embedded", "set gpu.count to 0"),
        ("control.mode=explicit", "control.adminKeySecret"),
        ("categories={screw}", "set control.mode to explicit"),
        ("categories={no such name}", "categories"),
        ("tls.enabled=true", "turn one off"),
        ("gateway.tlsSecret=", "give gateway.image, gateway.tlsSecret and gateway.tokensSecret"),
        ("logFormat=xml", "logFormat"),
        ("verify.enabled=false", "set verify.enabled to true"),
        ("verify.image=", "NVIDIA's Triton verifies nothing; give verify.image"),
        ("repository.kind=baked", "models in the server's own image cannot be reached"),
        ("verify.trustedKeys.a=-----BEGIN PRIVATE KEY-----", "verify"),
        ("repository.claim=", "name the claim in repository.claim"),
        ("repository.kind=bucket", "repository.bucket.source"),
        ("autoscaling.prometheus=", "autoscaling.prometheus"),
        ("autoscaling.min=9", "autoscaling.min (9) is more than autoscaling.max (6)"),
        ("probes.timeoutSeconds=20", "shorter than probes.periodSeconds"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_name(
    helm: Callable[..., Any], change: str, says: str
) -> None:
    said = helm("template", "plant", str(CHART), "--values", variant("gpu"), "--set", change)
    assert said.returncode != 0
    assert says in said.stderr


def test_every_value_is_described_by_the_schema_and_in_the_file() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    def compare(given: Any, described: Any, path: str) -> None:
        properties = described.get("properties")
        if properties is None:
            return
        assert described["additionalProperties"] is False, path
        assert set(given) | {"global"} == set(properties) | {"global"}, path
        for name, value in given.items():
            compare(value, properties[name], f"{path}.{name}")

    compare(values, schema, "values")


@pytest.mark.parametrize("name", VARIANTS)
def test_every_option_is_one_that_the_real_server_has(
    render: Callable[..., list[Any]], name: str
) -> None:
    container = server_of(render(name))
    options = {word.split("=")[0] for word in container["args"] if word.startswith("--")}
    if container["command"] == ["tritonserver"]:
        triton = locate()
        helped = subprocess.run(
            [triton.server, "--help"],
            env={"LD_LIBRARY_PATH": str(triton.libraries)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        known = set(re.findall(r"^\s*(--[\w-]+)", helped.stdout + helped.stderr, re.MULTILINE))
    else:
        helped_ours = CliRunner().invoke(main, ["serve", "--help"]).output
        known = set(re.findall(r"--[\w-]+", helped_ours))
    assert len(options) > 5
    assert options <= known, options - known


@pytest.mark.parametrize("name", VARIANTS)
def test_no_container_may_do_more_than_it_must(render: Callable[..., list[Any]], name: str) -> None:
    for document in render(name):
        if document["kind"] != "Deployment":
            continue
        pod = document["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        mounted = {volume["name"] for volume in pod["volumes"]}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert "@sha256:" in container["image"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= mounted


@pytest.mark.parametrize("name", VARIANTS)
def test_a_pod_has_the_time_that_its_end_takes(render: Callable[..., list[Any]], name: str) -> None:
    documents = render(name, "--set", "drain.sleepSeconds=7,drain.exitSeconds=40")
    pod = next(
        d for d in documents if d["kind"] == "Deployment" and d["metadata"]["name"] == "plant"
    )
    spec = pod["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    exits = [word for word in container["args"] if word.startswith("--exit-timeout-secs")]
    assert exits == ([] if name == "embedded" else ["--exit-timeout-secs=40"])
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] == 7
    assert spec["terminationGracePeriodSeconds"] >= 7 + (10 if name == "embedded" else 40) + 10
