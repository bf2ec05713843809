"""A model that was there a moment ago is asked for again: it may be back before the deadline."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from waiting import wait_for

from diffusionad_client import Client, ModelNotFoundError
from diffusionad_client.testing import Fault, Refusal

IMAGE = np.zeros((8, 8, 3), np.uint8)
NOT_THIS_ONE = "Request for unknown model: 'screw' version 1 is not at ready state"


@pytest.mark.parametrize(
    "failures",
    [
        {"ModelInfer": Fault.NO_VERSION},
        {"ModelInfer": Fault.NO_VERSION, "ModelConfig": Fault.NO_VERSION},
        {
            "ModelInfer": Fault.NO_VERSION,
            "ModelConfig": Refusal(grpc.StatusCode.UNAVAILABLE, NOT_THIS_ONE),
            "RepositoryIndex": Fault.STOPPING,
        },
        # In the middle of a move a polling server knows no such model, but its list has it.
        {"ModelInfer": Fault.NOT_FOUND},
        {"ModelMetadata": Fault.NOT_FOUND},
    ],
)
@pytest.mark.parametrize("model", ["screw", None])
def test_a_model_that_has_answered_is_waited_for(
    triton: Any, failures: dict[str, Any], model: str | None
) -> None:
    with Client(triton.url, model) as client, ThreadPoolExecutor(1) as pool:
        client.inspect(IMAGE)
        if "ModelMetadata" in failures:  # asked again when the client knows nothing any more
            (server,) = client._session.servers.all()
            server.releases.forget("screw")
        asked = triton.counts.total()
        for method, fault in failures.items():
            triton.fail(fault, method)
        found = pool.submit(client.inspect, IMAGE, timeout=10)
        wait_for(lambda: triton.counts.total() > asked + 4)
        assert not found.done()
        triton.heal()
        assert found.result(timeout=10).release == "a" * 64


def test_a_model_that_stays_away_is_an_error_that_says_so_when_the_time_is_up(triton: Any) -> None:
    with Client(triton.url, "screw") as client:
        client.inspect(IMAGE)
        triton.fail(Fault.NO_VERSION)
        started = time.monotonic()
        with pytest.raises(ModelNotFoundError, match="lists 'screw' as ready") as caught:
            client.inspect(IMAGE, timeout=1.0)
    assert 0.3 < time.monotonic() - started < 5
    assert caught.value.retryable


@pytest.mark.parametrize("asked_before", [True, False])
def test_a_model_that_never_answered_is_an_error_at_once(triton: Any, asked_before: bool) -> None:
    with Client(triton.url) as client:
        if asked_before:
            client.inspect(IMAGE)
        asked = triton.counts["ModelMetadata"]
        with pytest.raises(ModelNotFoundError, match="it serves: screw"):
            client.inspect(IMAGE, model="nut", timeout=5)
        assert triton.counts["ModelMetadata"] == asked + 1


def test_without_retries_a_model_that_is_gone_is_an_error_at_once(triton: Any) -> None:
    triton.fail(Fault.NO_VERSION)
    with Client(triton.url, retry=False) as client, pytest.raises(ModelNotFoundError):
        client.inspect(IMAGE)
    assert triton.counts["ModelInfer"] == 1


def test_the_encoded_form_is_waited_for_too(triton: Any) -> None:
    with Client(triton.url, "screw") as client:
        client.inspect(IMAGE)
        with pytest.raises(ModelNotFoundError) as caught:  # it is not there, and never was
            client.inspect(b"a file", decode="server", timeout=5)
        assert not caught.value.retryable
        triton.category.encoded = True
        triton.fail(Fault.NOT_FOUND, "ModelMetadata")
        with pytest.raises(ModelNotFoundError) as caught:
            client.inspect(b"a file", decode="server", timeout=5)
        assert caught.value.retryable
