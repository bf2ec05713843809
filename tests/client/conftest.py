"""The client's own server for tests with a category that is easy to predict, and images for it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import (
    Calibration,
    ReleaseMetadata,
    Thresholds,
    TrainingSummary,
)
from diffusionad_client.testing import FakeCategory, FakeServer

SIZE = 32


def make_metadata(category: str = "screw", **changes: Any) -> ReleaseMetadata:
    document = ReleaseMetadata(
        category=category,
        release="a" * 64,
        preset="edge",
        size=SIZE,
        thresholds=Thresholds(accept=0.3, reject=0.6),
        pixel_threshold=0.5,
        calibration=Calibration(good_images=40, false_reject_rate=0.01, review_rate=0.05),
        training=TrainingSummary(images=100, steps=1000, seed=0, data_digest="d" * 64),
        digests={step.value: "0" * 64 for step in contract.NETWORK_STEPS},
        metrics={"image_auroc": 0.98, "pixel_auroc": None},
    )
    return replace(document, **changes)


def make_category(
    name: str = "screw",
    *,
    version: str = "1",
    loaded: bool = True,
    broken: str = "",
    alter_config: Callable[[Any], None] | None = None,
    **changes: Any,
) -> FakeCategory:
    """Give a category whose score of an image is its mean red, of 0 to 1."""
    return FakeCategory.of(
        make_metadata(name, **changes),
        version=version,
        score=lambda image: float(_red(image).mean()),
        anomaly_map=_red,
        reconstruction=lambda image: 255 - image,
        encoded=False,
        loaded=loaded,
        broken=broken,
        alter_config=alter_config,
    )


def _red(image: Any) -> Any:
    return image[..., 0].astype(np.float32) / 255


@pytest.fixture(name="make_metadata")
def fixture_make_metadata() -> Callable[..., ReleaseMetadata]:
    return make_metadata


@pytest.fixture(name="make_category")
def fixture_make_category() -> Callable[..., FakeCategory]:
    return make_category


@pytest.fixture
def empty_triton() -> Iterator[FakeServer]:
    """A server without models."""
    with FakeServer() as server:
        server.categories.clear()
        yield server


@pytest.fixture
def triton() -> Iterator[FakeServer]:
    """A server with the category "screw"."""
    with FakeServer(make_category()) as server:
        yield server


@pytest.fixture
def two_tritons(triton: FakeServer) -> Iterator[tuple[FakeServer, FakeServer]]:
    """Two servers with the category "screw"."""
    with FakeServer(make_category()) as other:
        yield triton, other


@pytest.fixture
def dead_url() -> str:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return f"127.0.0.1:{port}"


@pytest.fixture
def save_image() -> Callable[..., Path]:
    """Write an image of one red, of 0 to 255, which the fake server makes its score."""

    def save(path: Path, red: int = 0, size: tuple[int, int] = (40, 30)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (red, 90, 90)).save(path)
        return path

    return save
