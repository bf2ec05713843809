"""Who decodes a picture: what was asked for, or what sends fewer bytes to a server that can."""

from __future__ import annotations

import asyncio
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusionad_client import (
    ArgumentError,
    AsyncClient,
    Client,
    ImageError,
    ModelNotFoundError,
    ServerUnavailableError,
    images,
)
from diffusionad_client.sdk import releases
from diffusionad_client.sdk.arguments import Decode, check_decode
from diffusionad_client.sdk.prepared import held, prepare
from diffusionad_client.testing import FakeCategory, FakeServer, Fault

SIZE = 32
NOISE = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
FLAT = np.full((50, 70, 3), (100, 0, 0), np.uint8)


class Foreign:
    """An array of a library that is not imported here."""

    def __init__(self, array: Any) -> None:
        self.__array_interface__ = array.__array_interface__


def png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


LARGE, SMALL = png(NOISE), png(FLAT)


def test_the_smaller_form_is_sent_if_the_server_may_choose() -> None:
    assert len(SMALL) < 3 * SIZE**2 < len(LARGE)
    small, large = prepare(SMALL, decode="auto"), prepare(LARGE, decode="auto")
    assert small.goes_as_file(SIZE)
    assert small.goes_as_file(SIZE, served_encoded=True)
    assert not small.goes_as_file(SIZE, served_encoded=False)
    assert not large.goes_as_file(SIZE)
    assert large.goes_as_file(256)


@pytest.mark.parametrize("served", [None, True, False])
def test_who_was_told_to_decode_does(served: bool | None) -> None:
    assert prepare(LARGE, decode="server").goes_as_file(SIZE, served_encoded=served)
    assert not prepare(SMALL, decode="client").goes_as_file(SIZE, served_encoded=served)
    assert not prepare(FLAT, decode="auto").goes_as_file(256, served_encoded=served)


@pytest.mark.parametrize("decode", ["client", "server", "auto"])
def test_the_pixels_are_the_same_whoever_might_have_decoded(decode: Any, tmp_path: Path) -> None:
    (tmp_path / "part.png").write_bytes(LARGE)
    for source in (LARGE, tmp_path / "part.png", io.BytesIO(LARGE)):
        prepared = prepare(source, decode=decode)
        assert prepared.size == (50, 70)
        np.testing.assert_array_equal(prepared.batch(SIZE, 16)[0], images.resize(NOISE, SIZE))
        assert prepared.decode_s > 0


def test_a_second_try_does_not_resize_again_and_another_model_does() -> None:
    prepared = prepare(NOISE)
    first = prepared.picture(SIZE, 16)
    assert prepared.picture(SIZE, 16) is first
    assert prepared.picture(64, 16).shape == (64, 64, 3)


def test_the_depth_is_that_of_the_release_that_answers() -> None:
    prepared = prepare(np.full((40, 40), 2048, np.uint16))
    assert prepared.picture(SIZE, 12)[0, 0, 0] == 128
    assert prepared.picture(SIZE, 16)[0, 0, 0] == 8
    with pytest.raises(ImageError, match="have 10 bits"):
        prepared.picture(SIZE, 10)


def test_a_file_is_sent_byte_for_byte() -> None:
    batch = prepare(SMALL, decode="server").file_batch()
    assert (batch.shape, batch.dtype, batch[0, 0]) == ((1, 1), np.object_, SMALL)
    with pytest.raises(ImageError, match="no file"):
        prepare(NOISE).file_batch()


@pytest.mark.parametrize("view", [lambda frame: frame, memoryview, Foreign])
def test_a_stream_keeps_frames_that_the_camera_fills_again(view: Any) -> None:
    frame = NOISE.copy()
    kept = held(view(frame))
    frame[:] = 0
    np.testing.assert_array_equal(images.load(kept), NOISE)


def test_a_stream_keeps_bytes_that_are_filled_again_and_all_else_as_it_is(tmp_path: Path) -> None:
    buffer = bytearray(SMALL)
    kept = [held(buffer), held(memoryview(buffer))]
    buffer[:] = bytes(len(buffer))
    assert kept == [SMALL, SMALL]
    released = memoryview(SMALL)
    released.release()
    picture = Image.fromarray(NOISE)
    for source in (tmp_path, SMALL, picture, io.BytesIO(), released, None):
        assert held(source) is source  # type: ignore[arg-type]


def test_a_camera_that_fills_one_frame_again_and_again_gets_an_answer_for_each(
    triton: Any,
) -> None:
    def frames() -> Iterator[Any]:
        frame = np.zeros((40, 40, 3), np.uint8)
        for red in range(0, 250, 10):
            frame[..., 0] = red
            yield frame

    with Client(triton.url) as client:
        scores = [outcome.result().score for outcome in client.inspect_stream(frames())]
    np.testing.assert_allclose(scores, np.arange(0, 250, 10) / 255, rtol=1e-5)


@pytest.mark.parametrize("source", [NOISE, Image.fromarray(NOISE)])
def test_what_is_no_file_cannot_be_decoded_by_the_server(source: Any) -> None:
    with pytest.raises(ImageError, match="leave out decode='server'"):
        prepare(source, decode="server")


def test_a_damaged_file_is_known_at_once_where_it_is_decoded_and_by_name(tmp_path: Path) -> None:
    (tmp_path / "part.png").write_bytes(LARGE[:500])
    for decode in ("server", "auto"):
        late = prepare(tmp_path / "part.png", decode=decode)  # type: ignore[arg-type]
        with pytest.raises(ImageError, match=r"part\.png: the image is damaged"):
            late.pixels()
    with pytest.raises(ImageError, match=r"part\.png: the image is damaged"):
        prepare(tmp_path / "part.png")
    assert prepare(b"no image", decode="server").size is None


def test_it_is_shown_without_its_bytes() -> None:
    assert repr(prepare(SMALL, decode="auto")) == (
        f"<Prepared picture: a file of {len(SMALL)} bytes, decode='auto'>"
    )


def test_the_older_word_is_understood_and_its_user_is_told_of_the_newer(triton: Any) -> None:
    with (
        Client(triton.url) as client,
        pytest.warns(DeprecationWarning, match="encoded=False .* decode='client'") as caught,
    ):
        client.inspect(FLAT, encoded=False)
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]


def test_both_words_at_once_are_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ArgumentError, match="decode='client' and encoded=True .* twice"):
            check_decode("client", True)
        with pytest.raises(ArgumentError, match="encoded is True or False"):
            check_decode(None, "yes")  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="decode is 'client', 'server' or 'auto', not 3"):
            check_decode(3)  # type: ignore[arg-type]


def screw(**changes: Any) -> FakeCategory:
    return FakeCategory(
        size=SIZE, score=lambda picture: float(picture[..., 0].mean()) / 255, **changes
    )


def asked(server: FakeServer) -> list[str]:
    return [received.model for received in server.requests]


def test_the_smaller_form_goes_over_the_wire() -> None:
    ways: tuple[Decode, ...] = ("auto", "client", "server")
    with FakeServer(screw()) as server, Client(server.url) as client:
        scores = {client.inspect(SMALL, decode=how).score for how in ways}
        client.inspect(LARGE, decode="auto")
        client.inspect(FLAT, decode="auto")
    assert len(scores) == 1
    assert asked(server) == ["screw__encoded", "screw", "screw__encoded", "screw", "screw"]


def test_a_server_that_does_not_decode_is_sent_the_pixels_and_not_asked_each_time() -> None:
    with FakeServer(screw(encoded=False)) as server, Client(server.url, "screw") as client:
        scores = {client.inspect(SMALL, decode="auto").score for _ in range(3)}
    assert len(scores) == 1
    assert asked(server) == ["screw"] * 3
    assert server.counts["RepositoryIndex"] == 1  # once, to say what is served instead


def test_a_server_that_came_to_decode_is_sent_files_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(releases, "_DECODES_AGAIN_S", 0.0)
    with FakeServer(screw(encoded=False)) as server, Client(server.url, "screw") as client:
        client.inspect(SMALL, decode="auto")
        server.category.encoded = True
        client.inspect(SMALL, decode="auto")
    assert asked(server) == ["screw", "screw__encoded"]


def test_a_decoder_that_has_died_costs_no_answer() -> None:
    with (
        FakeServer(screw()) as server,
        Client(server.url, "screw") as client,
        server.failing(Fault.PROCESS_DEAD, model="screw__encoded"),
    ):
        for _ in range(3):
            client.inspect(SMALL, decode="auto")
        assert asked(server) == ["screw__encoded", "screw", "screw", "screw"]
        with pytest.raises(ServerUnavailableError):
            client.inspect(SMALL, decode="server", timeout=0.3)


def test_a_category_that_is_not_served_is_said_to_be_missing_not_its_encoded_form() -> None:
    with (
        FakeServer(screw()) as server,
        Client(server.url, "bolt") as client,
        pytest.raises(ModelNotFoundError, match="does not serve 'bolt'; it serves: screw"),
    ):
        client.inspect(SMALL, decode="auto")


def test_an_event_loop_is_served_alike() -> None:
    async def ask(url: str) -> list[float]:
        async with AsyncClient(url) as client:
            sources = [SMALL, io.BytesIO(SMALL), FLAT[..., ::-1]]
            one = [await client.inspect(source, decode="auto", color="bgr") for source in sources]
            many = await client.inspect_batch([SMALL, FLAT], decode="auto")
            return [found.score for found in [*one, *(each.result() for each in many)]]

    with FakeServer(screw()) as server:
        scores = asyncio.run(ask(server.url))
    assert len({*scores}) == 1
    assert asked(server)[:3] == ["screw__encoded", "screw__encoded", "screw"]


@pytest.mark.parametrize("sources", ["a.png", Path("a.png"), SMALL, io.BytesIO(SMALL), FLAT])
@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_one_image_is_no_stream_of_images(client: Any, sources: Any) -> None:
    with pytest.raises(ArgumentError, match="of several images"):
        client("127.0.0.1:1").inspect_stream(sources)
