"""The three distributions: what the client says of the others is so, and names are told apart."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import tomllib

from diffusionad_client import cli
from diffusionad_client.distributions import install_hint

ROOT = Path(__file__).resolve().parents[2]


def project(folder: str) -> dict[str, Any]:
    document = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(document["project"])


def test_the_client_knows_which_distribution_has_which_command() -> None:
    declared = {
        command: about["name"]
        for about in map(project, ("client", "training", "tools"))
        for command in about["entry-points"][cli.COMMANDS]
    }
    assert declared == {name: known.distribution for name, known in cli._KNOWN.items()}


@pytest.mark.parametrize("folder", ["client", "training", "tools"])
def test_the_hint_names_the_folder_that_the_distribution_lies_in(folder: str) -> None:
    assert install_hint(project(folder)["name"]).endswith(f"pip install ./{folder}")


def test_the_hint_for_an_extra_names_one_that_exists() -> None:
    assert "report" in project("client")["optional-dependencies"]
    assert install_hint("diffusionad-client", "report").endswith("pip install './client[report]'")


def test_no_two_classes_have_one_name() -> None:
    """But those that Triton's processes need, which import nothing of ours."""
    named: dict[str, set[str]] = defaultdict(set)
    for part in ("client", "tools", "training"):
        for path in sorted((ROOT / part).glob("diffusionad_*/**/*.py")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    named[node.name].add(path.relative_to(ROOT).as_posix())
    twice = {name: places for name, places in named.items() if len(places) > 1}
    assert twice.keys() <= {"TritonPythonModel", "ModelLoadError"}, twice
