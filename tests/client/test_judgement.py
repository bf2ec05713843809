"""An answer of contract 2 says what it was judged by, and nothing cached decides a verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusionad_client import Client, ContractError, ImageError, Thresholds, Verdict, contract
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_client.sdk.judgement import judgement_that_came

MakeMetadata = Callable[..., ReleaseMetadata]
SIZE = 32
STRICT = Thresholds(0.1, 0.2)
JUDGEMENT = [contract.VERDICT, contract.THRESHOLDS, contract.RELEASE]


def red(value: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    image = np.zeros((40, 40, 3), np.uint8)
    image[..., 0] = value
    return image


@pytest.fixture
def judging(triton: Any, make_category: Any) -> Any:
    triton.serve(make_category(contract=2))
    return triton


def test_the_judgement_is_asked_for_where_the_release_can_give_it(
    triton: Any, make_category: Any
) -> None:
    with Client(triton.url) as client:
        client.inspect(red(1), anomaly_map=False, reconstruction=False)
        triton.serve(make_category(contract=2, release="b" * 12, version="2"))
        client.inspect(red(1), anomaly_map=False, reconstruction=False)
    assert list(triton.requests[0].outputs) == [contract.SCORE]
    assert list(triton.requests[-1].outputs) == [contract.SCORE, *JUDGEMENT]


def test_the_verdict_and_the_thresholds_are_those_that_came(judging: Any) -> None:
    came = {
        contract.VERDICT: np.array([[b"REVIEW"]], np.object_),
        contract.THRESHOLDS: np.array([[0.001, 0.317, 0.25]], np.float32),
    }
    judging.category.alter = lambda outputs: outputs.update(came)
    with Client(judging.url) as client:
        found = client.inspect(red(0))
    assert found.verdict is Verdict.REVIEW
    assert found.thresholds == Thresholds(0.001, 0.317)  # not 0.31700000166893005
    assert found.pixel_threshold == 0.25


def test_thresholds_are_written_as_the_release_has_them(judging: Any, make_category: Any) -> None:
    own = Thresholds(1 / 3, 0.5)
    judging.serve(make_category(contract=2, thresholds=own))
    with Client(judging.url) as client:
        assert client.inspect(red(0)).thresholds == own


def test_thresholds_of_the_caller_go_before_those_that_came(judging: Any) -> None:
    with Client(judging.url, thresholds=Thresholds(0.5, 0.9)) as client:
        assert client.inspect(red(153)).verdict is Verdict.REVIEW  # 0.6, NG by the release
        strict = client.inspect(red(153), thresholds=STRICT)
    assert (strict.verdict, strict.thresholds) == (Verdict.NG, STRICT)


def test_an_idle_client_judges_by_the_release_that_took_the_place_of_another(
    judging: Any, make_category: Any
) -> None:
    with Client(judging.url) as client:
        assert client.inspect(red(77)).verdict is Verdict.REVIEW  # 0.302
        swapped = make_category(contract=2, release="b" * 12, thresholds=STRICT, roi="c" * 64)
        judging.serve(swapped)  # another server, whose version 1 it is
        found = client.inspect(red(77))
    assert (found.verdict, found.thresholds) == (Verdict.NG, STRICT)
    assert (found.version, found.release, found.roi) == ("1", "b" * 12, "c" * 64)


def test_a_release_rolled_back_across_the_contract_is_judged_by_itself(
    triton: Any, make_category: Any
) -> None:
    old = {"thresholds": STRICT}
    new = {"contract": 2, "release": "b" * 12}
    with Client(triton.url, "screw") as client:
        for changes, version in ((old, "1"), (new, "2"), (old, "1"), (new, "1"), (old, "2")):
            served = make_category(version=version, **changes)
            metadata = served.metadata()
            triton.serve(served)
            if changes is new and version == "1":
                # The version alone cannot tell, and contract 1 says no more: ask the server.
                assert client.served().metadata == metadata
            found = client.inspect(red(77), timeout=5)
            assert (found.release, found.version) == (metadata.release, version)
            assert found.thresholds == metadata.thresholds


def test_an_idle_client_meets_a_server_of_another_size(judging: Any, make_category: Any) -> None:
    with Client(judging.url) as client:
        client.inspect(red(1))
        judging.serve(make_category(contract=2, release="b" * 12, size=48))
        found = client.inspect(red(1))
    assert found.anomaly_map is not None
    assert found.anomaly_map.shape == (48, 48)


@pytest.mark.parametrize("number", [1, 2])
def test_an_image_is_scaled_as_the_release_has_it_that_answers(
    triton: Any, make_category: Any, number: int
) -> None:
    grey = Image.fromarray(np.full((SIZE, SIZE), 4095, np.uint16))  # white, of 12 bits
    triton.serve(make_category(contract=number))
    with Client(triton.url) as client:
        assert client.inspect(grey).score == pytest.approx(16 / 255)
        triton.serve(make_category(contract=number, release="b" * 12, depth=12, version="2"))
        assert client.inspect(grey).score == 1.0


def test_an_image_that_the_release_before_could_not_take_is_no_error(
    judging: Any, make_category: Any
) -> None:
    bright = Image.fromarray(np.full((SIZE, SIZE), 65535, np.uint16))
    judging.serve(make_category(contract=2, depth=12))
    with Client(judging.url) as client:
        with pytest.raises(ImageError, match="have 12 bits"):
            client.inspect(bright)
        judging.serve(make_category(contract=2, release="b" * 12))
        assert client.inspect(bright).score == 1.0


def test_a_swap_needs_no_retries(judging: Any, make_category: Any) -> None:
    with Client(judging.url, retry=False) as client:
        client.inspect(red(1))
        judging.serve(make_category(release="b" * 12))  # of contract 1: it knows no VERDICT
        assert client.inspect(red(1)).release == "b" * 12


def test_metadata_is_fetched_once_for_many_answers(judging: Any) -> None:
    with Client(judging.url, "screw") as client:
        for value in range(10):
            client.inspect(red(value))
    assert judging.counts["ModelConfig"] == 1
    assert judging.counts["ModelMetadata"] == 1


def test_a_server_that_contradicts_itself_is_not_asked_for_ever(judging: Any) -> None:
    came = {contract.RELEASE: np.array([[b"elsewhere"]], np.object_)}
    judging.category.alter = lambda outputs: outputs.update(came)
    with (
        Client(judging.url, "screw") as client,
        pytest.raises(ContractError, match="answers as release elsewhere"),
    ):
        client.inspect(red(1))
    assert len(judging.requests) < 10


@pytest.mark.parametrize(
    ("output", "value", "message"),
    [
        (contract.VERDICT, np.array([[b"MAYBE"]], np.object_), "'MAYBE'"),
        (contract.THRESHOLDS, np.array([[0.9, 0.1, 0.5]], np.float32), "0.1"),
        (contract.THRESHOLDS, np.array([[np.nan, 0.1, 0.5]], np.float32), "nan"),
        (contract.THRESHOLDS, np.array([[0.1, 0.2]], np.float32), "THRESHOLDS of shape"),
        (contract.RELEASE, np.array([[b"a", b"b"]], np.object_), "RELEASE of shape"),
    ],
)
def test_a_judgement_that_makes_no_sense_is_refused(
    judging: Any, output: str, value: Any, message: str
) -> None:
    judging.category.alter = lambda outputs: outputs.update({output: value})
    with Client(judging.url) as client, pytest.raises(ContractError, match=message):
        client.inspect(red(1))


def test_a_score_at_a_threshold_keeps_the_verdict_that_came(make_metadata: MakeMetadata) -> None:
    score = np.float32(0.7)  # below 0.7, as doubles have it
    tensors = {
        contract.VERDICT: np.array([b"NG"], np.object_),
        contract.THRESHOLDS: np.array([0.3, score, 0.5], np.float32),
        contract.RELEASE: np.array([b"b" * 12], np.object_),
    }
    judged = judgement_that_came(tensors, make_metadata(contract=2))
    assert (judged.verdict, judged.thresholds.reject) == (Verdict.NG, 0.7)
    assert judged.thresholds.verdict(float(score)) is Verdict.REVIEW
