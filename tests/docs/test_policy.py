"""docs/policy.md says the numbers that the code has, and lists everything that warns."""

import re
from pathlib import Path

import yaml

from diffusionad_client import contract
from diffusionad_client.artifacts import metadata
from diffusionad_client.scoring import row
from diffusionad_training.config import migration

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, list[str]]:
    """The cells of a table's rows, by the first."""
    table = PAGE[PAGE.index(heading) :].split("\n\n")[0].splitlines()[2:]
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {cells[0]: cells[1:] for cells in split}


def test_the_numbers_of_forms_are_those_of_the_code() -> None:
    chart = yaml.safe_load((ROOT / "tools/deploy/chart/Chart.yaml").read_text(encoding="utf-8"))
    told = {what: cells[1] for what, cells in rows("| what | number | now |").items()}
    assert told == {
        "contract of a category": str(contract.NEWEST),
        "release metadata": str(metadata.SCHEMA_VERSION),
        "record": str(row.SCHEMA),
        "config of a run": str(migration.SCHEMA_VERSION),
        "Helm chart": chart["version"],
    }


def test_whatever_warns_of_its_end_is_listed() -> None:
    sources = [
        path.read_text(encoding="utf-8")
        for part in ("client", "training", "tools")
        for path in (ROOT / part).rglob("*.py")
    ]
    ends = re.compile(r"(\w+=)[^\"]* is deprecated")
    warned = {name for text in sources for name in ends.findall(text)}
    count = sum(len(re.findall(r"^\s+DeprecationWarning,", text, re.MULTILINE)) for text in sources)
    listed = rows("| deprecated | since |")
    assert {re.findall(r"`([^`]+)`", cell)[0] for cell in listed} == warned
    assert len(listed) == count
