"""The compose file: what it starts is what the chart starts, which other tests start."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "tools" / "deploy" / "compose"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text("utf-8"))[
        "services"
    ]
    return found


def filled_in(text: str, **values: str) -> str:
    """Fill in `${NAME}`, `${NAME:-default}` and `${NAME:?message}`."""
    return re.sub(
        r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}", lambda m: values.get(m[1], m[2] or f"<{m[1]}>"), text
    )


def test_triton_is_started_and_asked_as_in_the_chart(
    services: dict[str, Any], render: Callable[..., list[Any]]
) -> None:
    pod = next(
        d
        for d in render("gpu")
        if d["kind"] == "Deployment" and "gateway" not in str(d["metadata"]["name"])
    )
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    triton = services["triton"]
    arguments = [filled_in(word, UNUSED_KEY="$(POD_UID)") for word in triton["command"]]
    assert sorted(arguments) == sorted(container["args"])
    assert triton["entrypoint"] == container["command"]
    assert triton["healthcheck"]["test"][1:] == container["readinessProbe"]["exec"]["command"]


def test_the_gateway_is_the_charts_and_knows_triton(services: dict[str, Any]) -> None:
    mounts = dict(
        place.split(":")[:2] for place in services["gateway"]["volumes"] if place[0] == "."
    )
    assert mounts["../chart/files/nginx.conf"] == "/etc/diffusionad/nginx.conf"
    site = (COMPOSE / "site.conf").read_text("utf-8")
    assert "default triton:8001;" in site
    assert "triton" in services


def test_every_file_that_is_mounted_is_there_and_every_variable_is_explained(
    services: dict[str, Any],
) -> None:
    example = (COMPOSE / "env.example").read_text("utf-8")
    text = "".join((COMPOSE / f"{name}.yaml").read_text("utf-8") for name in ("compose", "verify"))
    for name in re.findall(r"\$\{(\w+)", text):
        assert f"\n{name}=" in example, name
    for service in services.values():
        for place in service.get("volumes", []):
            source = filled_in(place).split(":")[0]
            if source.startswith("."):
                assert (COMPOSE / source).resolve().is_file(), source


def test_strangers_reach_the_gateway_and_nothing_else(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        for port in service.get("ports", []):
            assert name == "gateway" or port.startswith("127.0.0.1:")
    assert "ports" not in services["triton"]
    assert services["triton"]["networks"] == ["inside"]


def test_prometheus_asks_where_each_triton_counts(services: dict[str, Any]) -> None:
    scraped = yaml.safe_load((COMPOSE / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    (looked_up,) = scraped[0]["dns_sd_configs"]
    assert (looked_up["names"], looked_up["type"]) == (["triton"], "A")
    assert scraped[0]["job_name"] == "diffusionad"
    assert f"--metrics-port={looked_up['port']}" in services["triton"]["command"]


def test_there_may_be_several_tritons(services: dict[str, Any]) -> None:
    """None has a name or a port of its own on the machine, and the gateway looks up the name."""
    assert not {"container_name", "ports", "hostname"} & set(services["triton"])
    assert re.search(r"resolver [\d.]+ valid=5s;", (COMPOSE / "site.conf").read_text("utf-8"))


def test_triton_waits_until_its_models_are_verified(
    services: dict[str, Any], render: Callable[..., list[Any]]
) -> None:
    """With the command of the chart's init container, which another test runs."""
    verifying = yaml.safe_load((COMPOSE / "verify.yaml").read_text("utf-8"))["services"]
    assert set(verifying["triton"]["depends_on"]) == {"verify"}
    pod = next(
        d["spec"]["template"]["spec"]
        for d in render("gpu")
        if d["kind"] == "Deployment" and d["metadata"]["name"] == "plant"
    )
    (container,) = pod["initContainers"]
    verify = verifying["verify"]
    assert [*verify["entrypoint"], *verify["command"]] == [
        *container["command"],
        *container["args"],
    ]
    assert (verify["read_only"], verify["cap_drop"]) == (True, ["ALL"])
    assert verify["volumes"][0] == services["triton"]["volumes"][0]


def test_the_documented_container_is_started_as_that_of_compose(services: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "serving.md").read_text("utf-8").replace("\\\n", "")
    (run,) = re.findall(r"^docker run .*", page, re.MULTILINE)
    (build,) = re.findall(r"^docker build .*", page, re.MULTILINE)
    outside, name, inside = run.partition(" diffusionad-triton ")
    assert f"--tag{name}" in build
    triton = services["triton"]
    options = [word.split(":diffusionad-key=")[0] for word in inside.split() if word[:2] == "--"]
    known = [filled_in(word).split(":diffusionad-key=")[0] for word in triton["command"]]
    assert len(options) == 6
    assert set(options) <= set(known)
    assert triton["read_only"]
    for words in ("--read-only", "--tmpfs /tmp", "--shm-size 1g", "--cap-drop ALL"):
        assert words in outside
    assert f"{triton['volumes'][1].partition(':')[2]} " in f"{outside} "
