from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

from diffusionad_client import Client, contract, errors
from diffusionad_client.transport import check_url

IMAGE = np.zeros((8, 8, 3), np.uint8)
Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (Code.UNAVAILABLE, "[request id: 1] Exceeds maximum queue size", errors.ServerBusyError),
        (Code.UNAVAILABLE, "Request timeout expired", errors.ServerBusyError),
        (
            Code.UNAVAILABLE,
            "This protocol is restricted, expecting header 'triton-grpc-protocol-x'",
            errors.AccessDeniedError,
        ),
        (Code.UNAVAILABLE, "Socket closed", errors.ServerUnavailableError),
        (Code.PERMISSION_DENIED, "no", errors.AccessDeniedError),
        (Code.UNAUTHENTICATED, "who", errors.AccessDeniedError),
        (Code.DEADLINE_EXCEEDED, "late", errors.DeadlineExceededError),
        (Code.NOT_FOUND, "gone", errors.ModelNotFoundError),
        (
            Code.UNAVAILABLE,
            "Request for unknown model: 'screw' has no available versions",
            errors.ModelNotFoundError,
        ),
        (Code.INVALID_ARGUMENT, "unexpected shape", errors.InferenceError),
        (Code.INTERNAL, "onnx runtime error 6", errors.InferenceError),
        (Code.UNIMPLEMENTED, "unknown service", errors.ContractError),
    ],
)
def test_each_failure_of_a_request_has_its_error(
    triton: Any, code: Any, message: str, expected: type[Exception]
) -> None:
    triton.failures["ModelInfer"] = (code, message)
    with Client(triton.url) as client, pytest.raises(expected) as caught:
        client.inspect(IMAGE)
    assert type(caught.value) is expected
    assert caught.value.__cause__ is not None
    assert triton.url in str(caught.value)


def test_a_server_that_is_not_there_is_named_and_worth_another_try(dead_url: str) -> None:
    with Client(dead_url) as client, pytest.raises(errors.ServerUnavailableError) as caught:
        client.health()
    assert dead_url in str(caught.value)
    assert caught.value.retryable


def test_where_the_index_is_restricted_a_named_category_still_works(triton: Any) -> None:
    triton.failures["RepositoryIndex"] = (Code.UNAVAILABLE, "This protocol is restricted")
    with Client(triton.url) as client:
        assert client.inspect(IMAGE, model="screw").score == 0
        with pytest.raises(errors.AccessDeniedError):
            client.models()
        with pytest.raises(errors.ModelNotFoundError, match="nut"):
            client.inspect(IMAGE, model="nut")


def test_after_an_outage_the_release_is_asked_for_again(triton: Any, make_metadata: Any) -> None:
    with Client(triton.url) as client:
        client.inspect(IMAGE)
        triton.failures["ModelInfer"] = (Code.UNAVAILABLE, "Socket closed")
        with pytest.raises(errors.ServerUnavailableError):
            client.inspect(IMAGE)
        triton.failures.clear()
        triton.serve(make_metadata(release="b" * 64))  # another server, counting from 1 again
        assert client.inspect(IMAGE).release == "b" * 64


def test_answers_of_more_than_4_megabytes_arrive(triton: Any, make_metadata: Any) -> None:
    triton.serve(make_metadata(size=1024))
    with Client(triton.url) as client:
        found = client.inspect(IMAGE)
    assert found.anomaly_map is not None
    assert found.anomaly_map.nbytes + 3 * 1024 * 1024 > 4 * 1024 * 1024


def test_an_answer_that_lacks_an_output_breaks_the_contract(triton: Any) -> None:
    triton.omitted = {contract.RECONSTRUCTION}
    with Client(triton.url) as client, pytest.raises(errors.ContractError, match="sent nothing"):
        client.inspect(IMAGE)


def test_an_answer_of_another_shape_breaks_the_contract(triton: Any, make_metadata: Any) -> None:
    with Client(triton.url) as client:
        client.inspect(IMAGE)
        triton.serve(make_metadata(size=64), "2")  # a size is for life
        with pytest.raises(errors.ContractError, match="ANOMALY_MAP"):
            client.inspect(IMAGE)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8001", "triton.plant:8001", "[::1]:8001", "ipv4:10.0.0.1:1,10.0.0.2:1"]
)
def test_addresses_that_grpc_dials_are_taken(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url", ["", "localhost", "http://localhost:8001", "grpc://a:1", "a:", "a:b", "a:1/v2", "::1"]
)
def test_other_addresses_are_refused_with_the_right_form(url: str) -> None:
    with pytest.raises(errors.AddressError, match="HOST:PORT"):
        check_url(url)
