"""What the documentation says of equations and settings is what the code has."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from diffusionad_training.config import reference
from diffusionad_training.config.presets import EDGE, PAPER
from diffusionad_training.config.settings import differences, values

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EQUATIONS = re.findall(
    r"^\| (?!equation |---)(.+?) \| `([\w.]+)` \| `(\w+)` \|$",
    (DOCS / "equations.md").read_text(encoding="utf-8"),
    flags=re.MULTILINE,
)
METHOD = (DOCS / "method.md").read_text(encoding="utf-8")


def test_the_table_of_settings_is_that_of_the_presets() -> None:
    command = "python -m diffusionad_training.config.reference docs/settings.md"
    written = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert written == reference.page(), f"docs/settings.md is stale; write it anew: {command}"


def test_every_setting_has_a_meaning_and_a_row() -> None:
    page = reference.page()
    for path in set(values(PAPER)) - {"preset"}:
        row = next(line for line in page.splitlines() if line.startswith(f"| `{path}` |"))
        assert row.split(" | ")[-1].strip(" |"), f"{path} has no comment that says what it means"


def test_every_row_of_equations_was_read() -> None:
    rows = [line for line in (DOCS / "equations.md").read_text().splitlines() if line[:2] == "| "]
    assert len(EQUATIONS) == len(rows) - 2  # but for its head


@pytest.mark.parametrize("equation", EQUATIONS, ids=lambda row: row[0])
def test_the_function_and_the_test_of_an_equation_exist(equation: tuple[str, str, str]) -> None:
    _, function, test = equation
    path, module = function.split("."), None
    for length in range(len(path), 0, -1):
        try:
            module = importlib.import_module(".".join(["diffusionad_training", *path[:length]]))
        except ModuleNotFoundError:
            continue
        break
    found: object = module
    for name in path[length:]:
        found = getattr(found, name)
    assert callable(found)
    assert test in _tests()


def _tests() -> set[str]:
    return {
        node.name
        for file in Path(__file__).parent.glob("test_*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }


def _named_settings(text: str) -> set[str]:
    """Settings that a text names, `synthesis.opacity`, `.soft_edge` being two."""
    named, section = set(), ""
    for word in re.findall(r"`([a-z_]*\.?[a-z_]+)`", text):
        before, dot, name = word.rpartition(".")
        if dot and before:
            section = before
        path = f"{section}.{name}" if dot else name
        named.add(path)
    return named & set(values(PAPER))


def test_every_way_in_which_edge_leaves_the_paper_has_its_reason() -> None:
    reasons = METHOD[METHOD.index("| setting | why |") :]
    assert set(differences(PAPER, EDGE)) - {"preset"} <= _named_settings(reasons)


def test_every_setting_that_method_md_names_exists() -> None:
    sections = {path.split(".")[0] for path in values(PAPER) if "." in path}
    named = re.findall(r"`([a-z_]+)\.([a-z_]+)(?:=[^`]*)?`", METHOD)
    paths = {f"{section}.{name}" for section, name in named if section in sections}
    paths |= {path for path in re.findall(r"--set (\w+\.\w+|\w+)=", METHOD.replace("SETTING=", ""))}
    assert paths
    assert paths <= set(values(PAPER))
