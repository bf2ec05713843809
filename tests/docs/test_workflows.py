"""What runs on the forge is what a developer runs here."""

import re
from pathlib import Path
from typing import Any

import pytest
import tomllib
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(name: str) -> dict[str, Any]:
    document = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))
    return dict(document["jobs"])


def commands(path: Path) -> list[str]:
    jobs = read(path.name)
    return [step["run"] for job in jobs.values() for step in job.get("steps", []) if "run" in step]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_make_target_exists(path: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    asked = re.findall(r"^make ([\w-]+)", "\n".join(commands(path)), re.MULTILINE)
    assert asked
    assert set(asked) <= set(targets)


def test_everything_is_tested_as_ci_does_on_both_versions_of_python() -> None:
    job = read("ci.yml")["all"]
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12"]


def test_the_client_is_tested_on_every_version_that_it_says_to_run_on() -> None:
    project = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text("utf-8"))["project"]
    tested = read("ci.yml")["client"]["strategy"]["matrix"]["python"]
    assert f">={tested[0]}" == project["requires-python"]
    assert tested == ["3.10", "3.11", "3.12", "3.13"]


def test_a_release_is_tested_before_it_is_built_and_built_before_it_is_published() -> None:
    jobs = read("release.yml")
    assert jobs["test"]["uses"] == "./.github/workflows/ci.yml"
    assert jobs["build"]["needs"] == "test"
    assert jobs["publish"]["needs"] == "build"
    assert any("attest-build-provenance" in step.get("uses", "") for step in jobs["build"]["steps"])


def test_no_job_may_write_more_than_it_needs() -> None:
    for path in WORKFLOWS:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert document["permissions"] == {"contents": "read"}
