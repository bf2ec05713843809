"""Every file, module, link and decision that the documents name exists."""

import importlib.util
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
PRESENT = [page for page in PAGES if page.parent.name != "decisions"]  # not of their time
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))

# A file of ours by its ending or by its first folder; a user's file has neither.
OURS = re.compile(
    r"^(?:(?:client|training|tools|tests|docs|model_repository)/\S*|\S+\.(?:py|css|mjs))$"
)
PLACEHOLDER = re.compile(r"[<>*{}…]|[A-Z]{3,}/")


@cache
def files() -> frozenset[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return frozenset(listed.stdout.splitlines())


def exists(place: str) -> bool:
    """Whether a file or folder of this name, or of this ending, is in the repository."""
    place = place.removesuffix("/")
    return any(
        file == place
        or file.endswith("/" + place)
        or file.startswith(place + "/")
        or f"/{place}/" in file
        for file in files()
    )


def prose(page: Path) -> str:
    return re.sub(
        r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), target
        if anchor:
            assert anchor in anchors(other), target


@pytest.mark.parametrize("page", PRESENT, ids=lambda path: path.name)
def test_files_named_are_there(page: Path) -> None:
    for span in re.findall(r"`([^`\n]+)`", prose(page)):
        if OURS.match(span) and not PLACEHOLDER.search(span):
            assert exists(span), span


@pytest.mark.parametrize("page", PRESENT, ids=lambda path: path.name)
def test_modules_named_are_there(page: Path) -> None:
    for name in re.findall(r"\bdiffusionad_\w+(?:\.\w+)*", page.read_text(encoding="utf-8")):
        if f"{name.replace('.', '/')}" in page.read_text(encoding="utf-8") and "." not in name:
            continue  # a folder, looked at above
        assert module_or_attribute(name), name


def module_or_attribute(name: str) -> bool:
    parent, _, last = name.rpartition(".")
    try:
        if importlib.util.find_spec(name) is not None:
            return True
        return hasattr(importlib.import_module(parent), last)
    except ImportError:
        return False


def test_places_and_names_of_the_table_of_homes_are_there() -> None:
    code = "\n".join(
        (ROOT / file).read_text(encoding="utf-8") for file in files() if file.endswith(".py")
    )
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page[page.index("| change |") :].split("\n\n")[0]
    for span in re.findall(r"`([^`]+)`", table):
        if "/" in span or "." in span:
            assert exists(span) or span == "diffusionad.commands", span
        else:
            assert re.search(rf"\b(?:def|class) {span}\b|^\s*{span}\b.*=", code, re.MULTILINE), span


def test_decisions_are_listed_with_their_titles() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    numbers = [int(path.name[:4]) for path in DECISIONS]
    assert len(set(numbers)) == len(numbers), "two decisions of one number"
    for path in DECISIONS:
        title = path.read_text(encoding="utf-8").splitlines()[0]
        number, name = title.removeprefix("# ").split(". ", 1)
        assert int(number) == int(path.name[:4])
        assert f"\n{number}. [{name}]({path.name})\n" in index, path.name


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)\s#]+\.md)", prose(page))
        waiting += [(page.parent / link).resolve() for link in links if "://" not in link]
    assert set(PAGES) <= reached


@pytest.mark.parametrize("distribution", ["client", "training"])
def test_the_decision_on_rooms_lists_them_in_the_order_that_is_checked(distribution: str) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = next(
        contract["layers"]
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract.get("containers") == [f"diffusionad_{distribution}"]
    )
    page = (ROOT / "docs" / "decisions" / "0020-rooms-and-their-order.md").read_text("utf-8")
    heading = {"client": "| the client,", "training": "| training,"}[distribution]
    table = page[page.index(heading) :].split("\n\n")[0].splitlines()[2:]
    listed = [name for row in table for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert listed == [name for layer in layers for name in layer.split(" | ")]
