"""A small product from folder to server, by the commands a user types."""

from collections.abc import Iterator
from pathlib import Path

import demo_product
import pytest
from demo_product import MadeOnce

from diffusionad_client.local_server import serve_repository

CATEGORY = demo_product.CATEGORY


@pytest.fixture(scope="session")
def diffusionad():
    """Run the command as a user does; by default it must succeed."""
    return demo_product.diffusionad


@pytest.fixture(scope="session")
def data(made_once: MadeOnce) -> Path:
    return demo_product.pictures(made_once)


@pytest.fixture(scope="session")
def run_folder(made_once: MadeOnce) -> Path:
    return demo_product.run(made_once)


@pytest.fixture(scope="session")
def bundle(made_once: MadeOnce) -> Path:
    return demo_product.bundle(made_once)


@pytest.fixture(scope="session")
def repository(made_once: MadeOnce) -> Path:
    return demo_product.repository(made_once)


@pytest.fixture(scope="session")
def url(repository: Path) -> Iterator[str]:
    with serve_repository(repository) as address:
        yield address
