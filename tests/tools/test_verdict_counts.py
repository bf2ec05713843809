"""Counts by verdict and category, on the metrics port of a real Triton."""

from __future__ import annotations

import re
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import Thresholds, Verdict
from diffusionad_client.sdk.client import Client
from diffusionad_tools.release.judged import misjudged
from diffusionad_tools.release.repository import find_release
from diffusionad_tools.server.process import (
    ExplicitControl,
    ServerSettings,
    TritonProcess,
    running_server,
)

KEY = "k" * 32
_LINE = re.compile(r"diffusionad_verdicts_total\{(.*)\} (\d+)")


def counts(server: TritonProcess) -> dict[tuple[str, str, str], int]:
    """Map category, version and verdict to what the one process for it has counted."""
    with urllib.request.urlopen(f"http://{server.metrics_url}/metrics", timeout=5) as answer:
        found = _LINE.findall(answer.read().decode())
    labelled = [
        (dict(re.findall(r'(\w+)="([^"]*)"', labels)), int(count)) for labels, count in found
    ]
    counted = {(of["category"], of["version"], of["verdict"]): n for of, n in labelled}
    assert len(counted) == len(found)
    return counted


def none_yet(category: str, version: str) -> dict[tuple[str, str, str], int]:
    return {(category, version, verdict.value): 0 for verdict in Verdict}


@pytest.mark.server
def test_each_part_counts_once_for_its_category_and_verdict_and_nothing_else_does(
    make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path
) -> None:
    """Also not warmup, nor a probe, nor the questions that `release` puts to a server."""
    repository = tmp_path / "repository"
    images = handmade_model().images(9)
    scores = [handmade_model().answer(image)[0] for image in images]
    thresholds = Thresholds(accept=sorted(scores)[3], reject=sorted(scores)[5])
    for category in ("bolt", "nut"):
        publish_ungated(make_bundle(category=category, thresholds=thresholds), repository)
    control = ExplicitControl(load=["bolt", "nut"], admin_key=KEY)
    settings = ServerSettings(repository=repository, metrics_port=0, explicit=control)
    untouched = none_yet("nut", "1")
    with running_server(settings) as server, Client(server.grpc_url, admin_key=KEY) as client:
        assert counts(server) == none_yet("bolt", "1") | untouched
        client.probe()
        served = find_release(repository, "bolt").metadata
        assert not list(misjudged(server.grpc_url, served, images, encoded=False, timeout=30))
        assert counts(server) == none_yet("bolt", "1") | untouched

        found = Counter(
            client.inspect(image, model="bolt", anomaly_map=False).verdict.value for image in images
        )
        assert len(found) == 3
        now = {("bolt", "1", verdict): count for verdict, count in found.items()}
        assert counts(server) == now | untouched

        publish_ungated(make_bundle(category="bolt", model=handmade_model(gain=1)), repository)
        client.load("bolt")
        client.inspect(np.zeros_like(images[0]), model="bolt")
        now |= none_yet("bolt", "2") | {("bolt", "2", "NG"): 1}
        after = counts(server)
        assert after.items() <= (now | untouched).items()
        assert after[("bolt", "2", "NG")] == 1
        client.unload("bolt")
        client.load("bolt")  # what counts anew begins at 0, as a rate expects
        assert {of: n for of, n in counts(server).items() if of[1] == "2"} == none_yet("bolt", "2")


def test_client_and_server_agree_on_the_id_of_a_probe() -> None:
    """The backend runs where nothing of ours can be imported."""
    backend = Path(misjudged.__code__.co_filename).parents[1] / "backends" / "onnxruntime"
    source = (backend / "verdict_counts.py").read_text()
    assert f'NOT_A_PART = "{contract.PROBE_ID}"' in source
    assert f'VERDICT = "{contract.VERDICT}"' in source
