from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_memory import InMemory
from PIL import Image

from diffusionad_client import (
    Client,
    ContractError,
    DeadlineExceededError,
    DiffusionADError,
    ImageError,
    ModelNotFoundError,
    Thresholds,
    Verdict,
    contract,
)
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_client.sdk import releases
from diffusionad_client.sdk.transports.base import IndexEntry, ModelConfig

SIZE = 32


def red(value: int, height: int = 50, width: int = 70) -> np.ndarray[Any, np.dtype[np.uint8]]:
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = value
    return image


def test_an_inspection_has_score_verdict_map_and_reconstruction(triton: Any) -> None:
    with Client(triton.url) as client:
        found = client.inspect(red(204))
    assert found.score == pytest.approx(0.8)
    assert found.verdict is Verdict.NG
    assert found.thresholds == Thresholds(0.3, 0.6)
    assert found.anomaly_map is not None
    assert found.anomaly_map.shape == (SIZE, SIZE)
    assert found.anomaly_map.dtype == np.float32
    assert found.reconstruction is not None
    assert found.reconstruction.shape == (SIZE, SIZE, 3)
    assert tuple(found.reconstruction[0, 0]) == (51, 255, 255)
    assert (found.model, found.version, found.release) == ("screw", "1", "a" * 64)
    assert found.pixel_threshold == 0.5
    assert found.timings.request_s > 0


def test_the_anomaly_map_is_stretched_to_the_users_image(triton: Any) -> None:
    with Client(triton.url) as client:
        found = client.inspect(red(51))
    stretched = found.anomaly_map_at(50, 70)
    assert stretched.shape == (50, 70)
    np.testing.assert_allclose(stretched, 0.2, atol=1e-6)


def test_every_form_of_an_image_gets_the_same_score(triton: Any, tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    Image.fromarray(red(100)).save(path)
    forms = [path, str(path), path.read_bytes(), Image.open(path), red(100)]
    with Client(triton.url) as client:
        scores = {client.inspect(form).score for form in forms}
    assert len(scores) == 1


def test_a_release_remembers_the_depth_of_its_images(
    triton: Any, make_category: Any, tmp_path: Path
) -> None:
    path = tmp_path / "part.png"
    Image.fromarray(np.full((40, 40), 2048, np.uint16)).save(path)
    with Client(triton.url) as client:
        assert client.inspect(path).score == pytest.approx(8 / 255, abs=1e-6)
    triton.serve(make_category(depth=12))
    with Client(triton.url) as client:
        for form in (path, path.read_bytes(), Image.open(path)):
            assert client.inspect(form).score == pytest.approx(128 / 255, abs=1e-6)
        Image.fromarray(np.full((40, 40), 4096, np.uint16)).save(path)
        with pytest.raises(ImageError, match=r"part\.png: a pixel is 4096, .* have 12 bits"):
            client.inspect(path)


@pytest.mark.parametrize(
    ("anomaly_map", "reconstruction", "expected"),
    [
        (True, True, [contract.SCORE, contract.ANOMALY_MAP, contract.RECONSTRUCTION]),
        (True, False, [contract.SCORE, contract.ANOMALY_MAP]),
        (False, False, [contract.SCORE]),
    ],
)
def test_only_what_is_asked_for_is_sent(
    triton: Any, anomaly_map: bool, reconstruction: bool, expected: list[str]
) -> None:
    with Client(triton.url) as client:
        found = client.inspect(red(1), anomaly_map=anomaly_map, reconstruction=reconstruction)
    assert list(triton.requests[0].outputs) == expected
    assert (found.anomaly_map is not None) == anomaly_map
    assert (found.reconstruction is not None) == reconstruction


def test_a_server_without_the_encoded_form_is_said_to_lack_it(triton: Any) -> None:
    with (
        Client(triton.url) as client,
        pytest.raises(ModelNotFoundError, match="not serve 'screw__encoded'; it serves: screw"),
    ):
        client.inspect(b"a file", decode="server")


def test_an_array_is_not_sent_encoded(triton: Any) -> None:
    with Client(triton.url) as client, pytest.raises(ImageError, match="leave out decode='server'"):
        client.inspect(red(1), decode="server")
    assert not triton.requests


def test_an_inspection_without_a_map_says_so_when_it_is_asked_for(triton: Any) -> None:
    with Client(triton.url) as client:
        found = client.inspect(red(1), anomaly_map=False)
    with pytest.raises(DiffusionADError, match="anomaly_map=True"):
        found.anomaly_map_at(10, 10)


def test_an_inspection_cannot_be_changed(triton: Any) -> None:
    with Client(triton.url) as client:
        found = client.inspect(red(1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.score = 0.0  # type: ignore[misc]  # that it cannot be assigned is what is tested


def test_thresholds_of_the_call_go_before_the_clients_and_those_before_the_releases(
    triton: Any,
) -> None:
    with Client(triton.url, thresholds=Thresholds(0.5, 0.9)) as client:
        assert client.inspect(red(153)).verdict is Verdict.REVIEW  # 0.6, NG by the release
        strict = client.inspect(red(153), thresholds=Thresholds(0.1, 0.2))
    assert strict.verdict is Verdict.NG
    assert strict.thresholds == Thresholds(0.1, 0.2)


def test_metadata_is_fetched_once_for_many_images(triton: Any) -> None:
    with Client(triton.url, "screw") as client, ThreadPoolExecutor(4) as pool:
        client.inspect(red(1))
        list(pool.map(client.inspect, [red(i) for i in range(20)]))
    assert triton.counts["ModelConfig"] == 1
    assert triton.counts["ModelInfer"] == 21


def test_threads_get_the_answers_of_their_own_images(triton: Any) -> None:
    values = list(range(0, 250, 5))
    with Client(triton.url) as client, ThreadPoolExecutor(8) as pool:
        scores = list(pool.map(lambda v: client.inspect(red(v)).score, values))
    np.testing.assert_allclose(scores, np.array(values) / 255, rtol=1e-5)


def test_a_new_release_is_judged_by_its_own_thresholds(triton: Any, make_category: Any) -> None:
    with Client(triton.url) as client:
        assert client.inspect(red(128)).verdict is Verdict.REVIEW
        triton.serve(make_category(release="b" * 64, thresholds=Thresholds(0.6, 0.7), version="2"))
        found = client.inspect(red(128))
    assert (found.version, found.release) == ("2", "b" * 64)
    assert found.verdict is Verdict.OK


def test_a_release_that_comes_during_a_request_is_judged_by_its_own_thresholds(
    triton: Any, make_category: Any
) -> None:
    newer = make_category(version="2", release="b" * 64, thresholds=Thresholds(0.6, 0.7))

    def promote(call: Any) -> None:
        if call.method == "ModelInfer":
            triton.serve(newer)

    triton.on_call = promote
    with Client(triton.url) as client:
        found = client.inspect(red(128))
    assert (found.release, found.thresholds) == ("b" * 64, newer.thresholds)


def test_an_answer_of_the_old_version_after_the_new_one_needs_no_second_fetch(
    triton: Any, make_category: Any
) -> None:
    old = make_category()
    with Client(triton.url) as client:
        client.inspect(red(1))
        triton.serve(make_category(release="b" * 64, version="2"))
        client.inspect(red(1))
        triton.serve(old)
        assert client.inspect(red(1)).release == old.release
    assert triton.counts["ModelConfig"] == 3  # one for the name of the only category


def test_an_idle_client_asks_which_release_is_served_before_it_goes_on(
    triton: Any, make_category: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic
    for old, new in (("1", "1"), ("2", "1")):  # another repository behind the same address
        triton.serve(make_category(version=old))
        with Client(triton.url, "screw") as client:
            client.inspect(red(1))
            triton.serve(make_category(release="b" * 64, version=new))
            with monkeypatch.context() as later:
                later.setattr(time, "monotonic", lambda: now() + releases.CONFIRM_IDLE_AFTER_S + 1)
                assert client.inspect(red(1)).release == "b" * 64
                asked = triton.counts["ModelConfig"]
                assert client.inspect(red(1)).release == "b" * 64
                assert triton.counts["ModelConfig"] == asked


def test_a_busy_client_asks_which_release_is_served_now_and_then_only(
    triton: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.monotonic()
    with Client(triton.url, "screw") as client, monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: clock)
        for _ in range(40):  # an image a second
            client.inspect(red(1))
            clock += 1
    assert triton.counts["ModelConfig"] == 2


def test_a_category_that_cannot_be_used_does_not_hide_the_others(
    triton: Any, make_category: Any
) -> None:
    triton.serve(make_category("bottle", alter_config=break_metadata))
    with Client(triton.url) as client:
        assert [served.model for served in client.models()] == ["screw"]
        (refused,) = client.catalogue().refused
        assert (refused.model, refused.version) == ("bottle", "1")
        assert "schema 99" in str(refused.reason)
        with pytest.raises(ModelNotFoundError, match="bottle, screw"):
            client.inspect(red(1))


def test_a_category_that_is_unloaded_while_it_is_listed_does_not_hide_the_others(
    make_metadata: Callable[..., ReleaseMetadata],
) -> None:
    class Unloading(InMemory):
        def index(self, *, timeout: float) -> list[IndexEntry]:
            return [IndexEntry("gone", "1", ready=True), *super().index(timeout=timeout)]

        def config(self, model: str, version: str, *, timeout: float) -> ModelConfig:
            if model == "gone":
                raise ModelNotFoundError("gone: the server does not serve it")
            return super().config(model, version, timeout=timeout)

    with Client("memory", transport=Unloading(make_metadata("bolt"))) as client:
        found = client.catalogue()
    assert [served.model for served in found.served] == ["bolt"]
    assert [refused.model for refused in found.refused] == ["gone"]


def test_without_a_name_the_only_category_is_used(triton: Any) -> None:
    with Client(triton.url) as client:
        assert client.inspect(red(1)).model == "screw"


def test_without_a_name_several_categories_are_an_error_that_lists_them(
    triton: Any, make_category: Any
) -> None:
    triton.serve(make_category("bottle"))
    with Client(triton.url) as client:
        client.inspect(red(1), model="screw")  # a choice for that call alone
        with pytest.raises(ModelNotFoundError, match="bottle, screw"):
            client.inspect(red(1))


def test_an_unknown_category_is_an_error_that_lists_the_served_ones(triton: Any) -> None:
    with (
        Client(triton.url, "nut") as client,
        pytest.raises(ModelNotFoundError, match="'nut'; it serves: screw"),
    ):
        client.inspect(red(1))


def test_a_category_that_vanishes_is_an_error_that_lists_the_served_ones(
    triton: Any, make_category: Any
) -> None:
    with Client(triton.url, "screw") as client:
        client.inspect(red(1))
        triton.categories.clear()
        triton.serve(make_category("bottle"))
        with pytest.raises(ModelNotFoundError, match="it serves: bottle"):
            client.inspect(red(1))


def test_a_server_without_categories_is_an_error(empty_triton: Any) -> None:
    with (
        Client(empty_triton.url) as client,
        pytest.raises(ModelNotFoundError, match="serves no category"),
    ):
        client.inspect(red(1))


def test_models_leaves_out_steps_unready_models_and_other_peoples_models(
    triton: Any, make_category: Any, make_metadata: Callable[..., ReleaseMetadata]
) -> None:
    triton.serve(make_category("resnet50", alter_config=forget_parameters))
    triton.serve(make_category("gone", broken="out of memory"))
    with Client(triton.url) as client:
        (served,) = client.models()
    assert (served.model, served.version) == ("screw", "1")
    assert served.metadata == make_metadata()


def test_a_model_that_is_no_category_is_refused(triton: Any, make_category: Any) -> None:
    triton.serve(make_category("resnet50", alter_config=forget_parameters))
    with Client(triton.url) as client, pytest.raises(ContractError, match="not a DiffusionAD"):
        client.inspect(red(1), model="resnet50")


def forget_parameters(config: Any) -> None:
    config.ClearField("parameters")


def break_dims(config: Any) -> None:
    config.input[0].dims[0] = SIZE * 2


def drop_output(config: Any) -> None:
    del config.output[-1]


def stop_batching(config: Any) -> None:
    config.max_batch_size = 0


def break_metadata(config: Any) -> None:
    config.parameters[contract.METADATA_PARAMETER].string_value = '{"schema_version": 99}'


def mistake_category(config: Any) -> None:
    text = config.parameters[contract.METADATA_PARAMETER].string_value
    changed = text.replace('"screw"', '"bottle"')
    config.parameters[contract.METADATA_PARAMETER].string_value = changed


def change_resize(config: Any) -> None:
    text = config.parameters[contract.METADATA_PARAMETER].string_value
    changed = text.replace(contract.RESIZE, "lanczos-9")
    config.parameters[contract.METADATA_PARAMETER].string_value = changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (break_dims, r"IMAGE UINT8 \[32, 32, 3\], not IMAGE UINT8 \[64, 32, 3\]"),
        (drop_output, "the outputs of a category of size 32"),
        (stop_batching, "max_batch_size"),
        (break_metadata, "schema 99"),
        (mistake_category, "that of 'bottle'"),
        (change_resize, "lanczos-9"),
    ],
)
def test_a_model_that_breaks_the_contract_is_refused(
    triton: Any, change: Callable[[Any], None], message: str
) -> None:
    triton.category.alter_config = change
    with Client(triton.url, "screw") as client, pytest.raises(ContractError, match=message):
        client.inspect(red(1))
    assert not triton.requests


def test_a_bad_image_is_refused_before_the_server_is_asked(triton: Any) -> None:
    with Client(triton.url) as client, pytest.raises(ImageError, match="RGB"):
        client.inspect(np.zeros((5, 5, 2), np.uint8))
    assert not triton.counts


def test_health_tells_whether_all_models_are_ready(triton: Any) -> None:
    with Client(triton.url) as client:
        assert client.health().ready
        triton.ready = False
        assert not client.health().ready
        assert client.health().server == "triton"


def test_a_client_that_is_closed_says_so(triton: Any) -> None:
    client = Client(triton.url)
    client.close()
    with pytest.raises(DiffusionADError, match="closed"):
        client.inspect(red(1))


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_must_be_positive(timeout: float) -> None:
    with pytest.raises(DiffusionADError, match="timeout"):
        Client("127.0.0.1:1", timeout=timeout)


def test_an_answer_that_does_not_come_in_time_is_an_error(triton: Any) -> None:
    triton.slow_s = 0.4
    with Client(triton.url) as client, pytest.raises(DeadlineExceededError):
        client.inspect(red(1), timeout=0.2)


def test_a_client_works_over_any_transport(make_metadata: Callable[..., ReleaseMetadata]) -> None:
    transport = InMemory(make_metadata("bolt"))
    with Client("memory", transport=transport) as client:
        found = client.inspect(red(9), anomaly_map=False, reconstruction=False)
    assert (found.model, found.version, found.verdict) == ("bolt", "7", Verdict.OK)
    assert transport.closed
