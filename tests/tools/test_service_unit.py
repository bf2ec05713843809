"""The unit of systemd for several servers on one machine: what it says, and what it starts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service_unit import EXAMPLE, PROGRAM, UNIT, ServiceUnit, example_settings, seconds, unit_values

from diffusionad_client import Client
from diffusionad_client.local_server import STARTUP_S
from diffusionad_client.sdk.admin_key import ensure_admin_key
from diffusionad_tools.server import process

MOST_EXPOSED = 20  # tenths, of 100: what systemd calls OK ends at 49


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed here; apt-get install systemd")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def installed(tmp_path: Path) -> str:
    """The unit as an instance, of a program that is there."""
    text = UNIT.read_text(encoding="utf-8")
    assert text.count(PROGRAM) == 1
    path = tmp_path / "diffusionad@a.service"
    path.write_text(text.replace(PROGRAM, "/bin/true"))
    return str(path)


def test_systemd_finds_nothing_to_complain_of(installed: str) -> None:
    said = analyze("verify", "--man=no", "--recursive-errors=no", installed)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


def test_systemd_finds_the_server_well_contained(installed: str) -> None:
    said = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", installed)
    assert said.returncode == 0, said.stdout


def test_systemd_waits_longer_than_serve_does_itself() -> None:
    assert seconds("TimeoutStartSec") > STARTUP_S
    assert seconds("TimeoutStopSec") > process._KILL_AFTER_S


def test_every_variable_of_the_command_is_in_the_example() -> None:
    settings = example_settings()
    assert {"GRPC_PORT", "METRICS_PORT", "SERVE_OPTIONS"} <= set(settings)
    (command,) = unit_values("Service")["ExecStart"]
    (models,) = unit_values("Service")["Environment"]
    for name in ("MODELS", *settings):
        assert name in command
    assert models.startswith("MODELS=")
    commented = [line[1:] for line in EXAMPLE.read_text().splitlines() if line[:1] == "#"]
    assert any(line.startswith("MODELS=") for line in commented)


@pytest.mark.server
def test_an_instance_serves_when_systemd_says_that_it_has_started_and_ends_in_order(
    make_bundle: Any, publish_ungated: Any, dead_url: str, tmp_path: Path
) -> None:
    publish_ungated(make_bundle(), tmp_path / "models")
    key_file = tmp_path / "admin.key"
    ensure_admin_key(key_file)
    settings = example_settings()
    there = "/etc/diffusionad/admin.key"
    assert there in settings["SERVE_OPTIONS"]
    settings |= {
        "MODELS": str(tmp_path / "models"),
        "GRPC_PORT": dead_url.rpartition(":")[2],
        "METRICS_PORT": "0",
        "SERVE_OPTIONS": settings["SERVE_OPTIONS"].replace(there, str(key_file)),
    }
    unit = ServiceUnit("a", settings, tmp_path)
    try:
        unit.start()
        with Client(unit.url, "widget", retry=False) as client:
            assert client.inspect(np.zeros((32, 32, 3), np.uint8)).model == "widget"
        assert unit.stop() == 0
    finally:
        unit.close()
    assert '"message": "Stopping."' in unit.log.read_text()
