"""Every shell block of the documents is run as it stands, or says why it is not."""

import os
import random
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import demo_product
import numpy as np
import pytest
from click.testing import CliRunner
from demo_product import MadeOnce
from documented import PAGES, ROOT, STORIES, Block, blocks, run
from numpy.typing import NDArray
from PIL import Image

from diffusionad_client.cli import main
from diffusionad_client.testing import FakeCategory, FakeServer

BLOCKS = [block for page in PAGES for block in blocks(page)]
TO_RUN = [block for block in BLOCKS if not block.mark and block.page.name not in STORIES]
TOLD = [page for page in PAGES if page.name in STORIES]


def of_length(items: list[Block], *, long: bool) -> list[Block]:
    return [item for item in items if item.is_long == long]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.mark], ids=str)
def test_a_block_that_is_not_run_here_says_why(block: Block) -> None:
    kind, _, what = block.mark.partition(": ")
    assert kind in {"not run", "run by"}, f"{block}: {block.mark}"
    if kind == "run by":
        file, _, test = what.partition("::")
        assert f"\ndef {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{block}: {what}"
    else:
        assert len(what.split()) >= 3, f"{block}: give a reason"


@pytest.mark.parametrize("block", of_length(TO_RUN, long=False), ids=str)
def test_a_block_runs_as_it_stands(
    block: Block, scored: Path, tmp_path: Path, make_certificates: type[Any]
) -> None:
    place = shutil.copytree(scored, tmp_path / "place")
    if "--output results" in block.text:
        shutil.rmtree(place / "results")
    with fake_server(block.text, place, make_certificates) as server:
        run(block.text, place, server, port=0)


@pytest.mark.long
@pytest.mark.server
@pytest.mark.parametrize("block", of_length(TO_RUN, long=True), ids=str)
def test_a_long_block_runs_as_it_stands(
    block: Block, tmp_path: Path, made_once: MadeOnce, make_certificates: type[Any]
) -> None:
    place = tmp_path / "place"
    lay_out(place, made_once, block.text)
    port = free_port()
    if block.serves:
        if "server.pem" in block.text:
            certificates = make_certificates(place)
            for name in ("server", "line"):
                certificates.write(name, certificates.issue("127.0.0.1"))
        run(block.text, place, f"127.0.0.1:{port}", port)
        return
    with fake_server(block.text, place, make_certificates) as server:
        run(block.text, place, server, port)


@pytest.mark.long
@pytest.mark.server
@pytest.mark.parametrize("page", TOLD, ids=lambda page: page.name)
def test_a_story_can_be_told_from_its_beginning_to_its_end(page: Path, tmp_path: Path) -> None:
    """In an empty folder; its blocks go on where the one before ended."""
    script = "".join(block.text for block in blocks(page) if not block.mark)
    place = tmp_path / "place"
    place.mkdir()
    (place / "model_repository").symlink_to(ROOT / "model_repository")
    port = free_port()
    run(script, place, f"127.0.0.1:{port}", port)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def fake_server(text: str, place: Path, make_certificates: type[Any]) -> Iterator[str]:
    """A server of the categories that are named, closed in the ways that are."""
    names = [name for name in ("screw", "nut", "bolt") if re.search(rf"\b{name}\b", text)]
    categories = [FakeCategory(name, brightness) for name in names or ["screw"]]
    closed = {}
    if "ca.pem" in text or "CA_CERT" in text:
        certificates = make_certificates(place)
        leaf = certificates.issue("127.0.0.1")
        pem = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        closed["certificate"] = (pem, leaf.private_key_pem.bytes())
    if "admin.key" in text:
        closed["admin_key"] = "k" * 32
        write_secret(place / "admin.key", "k" * 32)
    if "token" in text:
        write_secret(place / "token", "t" * 32)
    with FakeServer(*categories, **closed) as server:
        yield server.url


def brightness(image: NDArray[np.uint8]) -> float:
    return float(image.mean()) / 255


def write_secret(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey parts of two kinds, and their results: `results`, and those of two days to compare."""
    place = tmp_path_factory.mktemp("documented")
    chance = random.Random(0)
    for folder, count in (("good", 12), ("scratch", 3)):
        for number in range(count):
            level = chance.randrange(40, 200)
            target = place / "images" / folder / f"{number:03d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64), (level, level, level)).save(target)
    for home in ("line1", "archive"):
        shutil.copytree(place / "images", place / home)
    output = place / "results"
    with FakeServer(FakeCategory("screw", brightness)) as server:
        score = ["score", str(place / "images"), "--url", server.url, "--output", str(output)]
        result = CliRunner().invoke(main, [*score, "--field", "lot=7"])
    assert result.exit_code == 0, result.output
    for day in ("january", "today"):
        shutil.copytree(output, place / day)
        shutil.move(place / day, output / day)
    return place


def lay_out(place: Path, made_once: MadeOnce, text: str) -> None:
    """What training and releases of one product leave, under the names that the documents use."""
    data = demo_product.pictures(made_once)
    for name in ("screw", "bottle", "test", "from_the_line"):
        shutil.copytree(data / "test" if name == "test" else data, place / "images" / name)
    for home in ("incoming", "line1", "images/textures"):
        shutil.copytree(data / "test" / "good", place / home)
    (place / "today.txt").write_text("line1/000.png\nline1/001.png\n")
    (place / "eject.sh").write_text("#!/bin/sh\n")
    (place / "eject.sh").chmod(0o755)
    mask = Image.new("L", (64, 64))
    mask.paste(255, (8, 8, 56, 56))
    (place / "masks").mkdir()
    mask.save(place / "masks" / "screw.png")
    for name, make in (
        ("runs/screw", demo_product.run),
        ("bundles/screw", demo_product.bundle),
        ("bundles/new", demo_product.bundle),
    ):
        # What lines make themselves is not there yet.
        if f"--output {name}" not in text and name in text:
            (place / name).parent.mkdir(exist_ok=True)
            if "release sign" in text:  # which writes into what others read
                shutil.copytree(make(made_once), place / name)
            else:
                (place / name).symlink_to(make(made_once))
    if "model_repository" in text and "release add bundles/screw" not in text:
        served = demo_product.two_categories if "nut" in text else demo_product.repository
        shutil.copytree(served(made_once), place / "model_repository", copy_function=os.link)
