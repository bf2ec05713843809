"""The encoded form of a category: image files to a real Triton, which decodes them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

from diffusionad_client import Client, DiffusionADError, ImageError, ServeError, contract
from diffusionad_client.sdk.arguments import Decode
from diffusionad_tools.server import backends
from diffusionad_tools.server.process import ServerSettings, TritonProcess, running_server

pytestmark = pytest.mark.server


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def picture(seed: int = 0, height: int = 48, width: int = 64) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def lying_on_its_side() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(picture(), "JPEG", exif=exif)


def deep() -> Image.Image:
    return Image.fromarray(np.asarray(picture().convert("L")).astype(np.uint16) * 257)


DECODES: tuple[Decode, ...] = ("client", "server", "auto")
FILES = {
    "JPEG": encode(picture(), "JPEG"),
    "PNG": encode(picture()),
    "BMP": encode(picture(), "BMP"),
    "TIFF": encode(picture(), "TIFF", compression="tiff_lzw"),
    "of the model's size": encode(picture(height=32, width=32)),
    "EXIF orientation": lying_on_its_side(),
    "grey": encode(picture().convert("L"), "JPEG"),
    "palette": encode(picture().quantize(16)),
    "16 bits": encode(deep()),
    "16 bits TIFF": encode(deep(), "TIFF"),
    "CMYK": encode(picture().convert("CMYK"), "JPEG"),
    "alpha": encode(picture().convert("RGBA")),
    "zeros at the end": encode(picture(), "JPEG") + bytes(5),
}
BAD = b"this is not an image"


@pytest.fixture(scope="module")
def client(encoded_server: Any) -> Iterator[Client]:
    with Client(encoded_server.grpc_url) as connected:
        yield connected


@pytest.fixture(scope="module")
def raw(encoded_server: Any) -> Iterator[triton.InferenceServerClient]:
    """Triton's own client."""
    with triton.InferenceServerClient(encoded_server.grpc_url) as connected:
        yield connected


def ask(raw: triton.InferenceServerClient, files: list[bytes]) -> NDArray[np.float32]:
    """Put several files into one request; give their scores."""
    batch = np.array(files, dtype=np.object_)[:, np.newaxis]
    tensor = triton.InferInput(contract.IMAGE_BYTES, batch.shape, "BYTES")
    tensor.set_data_from_numpy(batch)
    wanted = [triton.InferRequestedOutput(contract.SCORE)]
    answer = raw.infer("widget__encoded", [tensor], outputs=wanted)
    scores: NDArray[np.float32] = answer.as_numpy(contract.SCORE)[:, 0]
    return scores


@pytest.mark.parametrize("name", FILES)
def test_a_file_gets_the_answer_that_its_pixels_get(client: Client, name: str) -> None:
    pixels = client.inspect(FILES[name])
    file = client.inspect(FILES[name], decode="server")
    assert file.score == pixels.score
    np.testing.assert_array_equal(file.anomaly_map, pixels.anomaly_map)
    np.testing.assert_array_equal(file.reconstruction, pixels.reconstruction)
    assert (file.verdict, file.release) == (pixels.verdict, pixels.release)
    assert (file.model, file.version) == ("widget", "1")


def test_a_file_of_the_product_s_depth_gets_the_answer_that_its_pixels_get(
    make_bundle: Any, publish_ungated: Any, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    publish_ungated(make_bundle(depth=12), repository, encoded=True)
    twelve = np.asarray(picture().convert("L")).astype(np.uint16) << 4
    scores = set()
    with (
        running_server(ServerSettings(repository=repository)) as server,
        Client(server.grpc_url) as connected,
    ):
        for form in ("PNG", "TIFF"):
            file = encode(Image.fromarray(twelve), form)
            scores |= {connected.inspect(file, decode=how).score for how in DECODES}
        for how in DECODES:
            with pytest.raises(ImageError, match="have 12 bits"):
                connected.inspect(encode(deep()), decode=how)
    assert len(scores) == 1


def test_only_the_outputs_asked_for_come_back(client: Client) -> None:
    found = client.inspect(FILES["PNG"], decode="server", anomaly_map=False, reconstruction=False)
    assert found.anomaly_map is None
    assert found.reconstruction is None


def test_a_broken_file_is_an_image_error_that_names_it_and_the_reason(
    client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "part.png"
    path.write_bytes(FILES["PNG"][:200])
    with pytest.raises(ImageError, match=r"part\.png: .*widget__encoded.*the image is damaged"):
        client.inspect(path, decode="server")


def test_a_file_that_the_server_may_refuse_is_looked_at_here_and_named(
    client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "part.png"
    path.write_bytes(BAD)
    with pytest.raises(ImageError, match=r"^\S*part\.png: not an image that can be read"):
        client.inspect(path, decode="auto")


def test_a_broken_file_fails_none_of_those_sent_beside_it(client: Client) -> None:
    files = [BAD if i % 3 == 0 else encode(picture(i)) for i in range(24)]

    def score(file: bytes) -> float | None:
        try:
            return client.inspect(file, decode="server").score
        except ImageError:
            return None

    with ThreadPoolExecutor(12) as pool:
        scores = list(pool.map(score, files))
    expected = [None if file is BAD else client.inspect(file).score for file in files]
    assert [s is None for s in scores] == [e is None for e in expected]
    np.testing.assert_allclose(
        [s for s in scores if s is not None], [e for e in expected if e is not None], atol=1e-6
    )


def test_several_files_in_one_request_each_get_their_score(
    client: Client, raw: triton.InferenceServerClient
) -> None:
    files = [encode(picture(seed), "JPEG") for seed in range(3)]
    expected = [client.inspect(file).score for file in files]
    np.testing.assert_allclose(ask(raw, files), expected, atol=1e-6)


def test_of_several_files_in_one_request_the_broken_one_is_named(
    raw: triton.InferenceServerClient,
) -> None:
    with pytest.raises(InferenceServerException, match="unusable image 1 of the request: .*not an"):
        ask(raw, [FILES["PNG"], BAD, FILES["JPEG"]])


def test_a_file_that_would_fill_the_memory_is_refused_by_its_header(client: Client) -> None:
    with pytest.raises(ImageError, match="12000 x 12000 pixels are more than the 100000000"):
        client.inspect(bomb(12_000), decode="server")


def bomb(side: int) -> bytes:
    """A small PNG whose header promises a huge picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks)


def test_a_server_lists_the_category_and_none_of_its_parts(client: Client) -> None:
    assert client.catalogue().names == ["widget"]


def test_serving_writes_nothing_into_the_repository(
    client: Client, encoded_repository: Path
) -> None:
    assert client.health().ready
    assert not list(encoded_repository.rglob("__pycache__"))


def test_a_server_without_the_clients_package_says_what_it_lacks(
    encoded_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "_MODEL_IMPORTS", ("numpy", "onnxruntime"))
    with (
        pytest.raises(
            ServeError, match=r"image_decoding_32 version 1: .* needs diffusionad-client"
        ),
        running_server(ServerSettings(repository=encoded_repository)),
    ):
        pass


def test_a_server_without_the_clients_package_serves_the_category_that_it_is_told_to(
    encoded_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = TritonProcess._arguments

    def explicit(self: TritonProcess, *where: Any) -> list[str]:
        kept = [a for a in usual(self, *where) if not a.startswith("--model-control-mode")]
        return [*kept, "--model-control-mode=explicit", "--load-model=widget"]

    monkeypatch.setattr(TritonProcess, "_arguments", explicit)
    monkeypatch.setattr(backends, "_MODEL_IMPORTS", ("numpy", "onnxruntime"))
    with (
        running_server(ServerSettings(repository=encoded_repository)) as server,
        Client(server.grpc_url) as client,
    ):
        assert client.health().ready
        assert client.inspect(FILES["PNG"]).model == "widget"
        with pytest.raises(DiffusionADError, match="widget__encoded"):
            client.inspect(FILES["PNG"], decode="server")
