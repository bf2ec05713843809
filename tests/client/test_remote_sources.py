"""Images at addresses: in memory, in local files, on a web server, and on a real S3 server."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import fsspec
import pytest

from diffusionad_client.errors import DeadlineExceededError, ImageError, SourceError
from diffusionad_client.folders import Reason
from diffusionad_client.scoring.results import read_rows
from diffusionad_client.scoring.sources import find_images

SaveImage = Callable[..., Path]


def names(found: Any) -> list[str]:
    return [image.name for image in found]


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def test_images_of_a_bucket_are_found_and_read_in_their_order(memory: Any) -> None:
    for name in ("b.png", "a.jpg", "deep/er/c.png", ".hidden.png", "notes.txt"):
        memory.pipe(f"/line/{name}", name.encode())
    found: Any = find_images(["memory://line"])
    assert names(found) == ["a.jpg", "b.png", "deep/er/c.png"]
    assert [image.read() for image in found] == [b"a.jpg", b"b.png", b"deep/er/c.png"]
    assert found.left_out.counts == {Reason.HIDDEN: 1, Reason.NO_IMAGE: 1}
    assert (found.root, found.count) == ("memory://line", None)


def test_one_image_and_a_pattern_are_addresses_too(memory: Any) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        memory.pipe(f"/line/{name}", b"")
    assert names(find_images(["memory://line/a/1.png"])) == ["1.png"]
    assert names(find_images(["memory://line/*/1.png"])) == ["a/1.png", "b/1.png"]


def test_local_files_have_addresses_too(tmp_path: Path, save_image: SaveImage) -> None:
    save_image(tmp_path / "parts" / "deep" / "a.png")
    (image,) = find_images([f"file://{tmp_path}/parts"])
    assert image.name == "deep/a.png"
    assert image.read() == (tmp_path / "parts" / "deep" / "a.png").read_bytes()


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (["memory://none"], "cannot be listed"),
        (["memory://line/*.png"], "no images there"),
        (["ftps://x/y"], "addresses begin with one of s3"),
        (["memory://line", "memory://other"], "one address a run"),
        (["memory://line", "parts"], "not together with parts"),
    ],
)
def test_an_address_without_images_is_a_sentence(
    memory: Any, sources: list[str], said: str
) -> None:
    memory.pipe("/line/notes.txt", b"")
    with pytest.raises(SourceError, match=said):
        find_images(sources)


def test_an_image_that_went_away_is_its_own_failure_and_one_that_hangs_is_not(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/line/a.png", b"a")
    (image,) = find_images(["memory://line"], timeout=0.2)
    memory.rm("/line/a.png")
    with pytest.raises(ImageError, match=r"line/a\.png: cannot be read"):
        image.read()
    held = threading.Event()
    monkeypatch.setattr(type(memory), "cat_file", lambda *_: held.wait(10))
    with pytest.raises(DeadlineExceededError, match=r"not read within 0\.2 s"):
        image.read()
    held.set()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    handler = partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


PROGRAM = """
import sys
from diffusionad_client.scoring.sources import find_images
for image in find_images([sys.argv[1]]):
    print(image.name, len(image.read()))
"""


def listed_by_another_process(address: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, address], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_images_are_read_from_a_web_server(tmp_path: Path, save_image: SaveImage, web: str) -> None:
    one = save_image(tmp_path / "parts" / "a.png").stat().st_size
    two = save_image(tmp_path / "parts" / "deep" / "b.png", 200).stat().st_size
    (tmp_path / "parts" / "notes.txt").write_text("no image")
    listed = listed_by_another_process(f"{web}/parts/")
    assert listed == f"a.png {one}\ndeep/b.png {two}\n"
    assert listed_by_another_process(f"{web}/parts/a.png") == f"a.png {one}\n"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket on moto's server, which speaks S3 over HTTP."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their packages
        import boto3
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
            ("AWS_ACCESS_KEY_ID", "testing"),
            ("AWS_SECRET_ACCESS_KEY", "testing"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="line-1")
        yield client
        server.stop()


def test_a_bucket_of_a_real_s3_server_is_scored_and_gone_on_with(
    triton: Any, bucket: Any, tmp_path: Path, save_image: SaveImage
) -> None:
    for name, red in (("lot-1/a.png", 20), ("lot-1/b.png", 250), ("lot-2/a.png", 100)):
        image = save_image(tmp_path / "image.png", red)
        bucket.put_object(Bucket="line-1", Key=f"today/{name}", Body=image.read_bytes())
    bucket.put_object(Bucket="line-1", Key="today/torn.png", Body=b"no image")
    bucket.put_object(Bucket="line-1", Key="yesterday/a.png", Body=b"")
    output = tmp_path / "out"
    command = [sys.executable, "-m", "diffusionad_client", "score", "s3://line-1/today"]
    command += ["--url", triton.url, "--output", str(output), "--path-pattern", "{lot}/{part}.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    text = (output / "results.jsonl").read_text()
    records = {record["image"]: record for record in map(json.loads, text.splitlines())}
    verdicts = {name: record["verdict"] for name, record in records.items()}
    assert verdicts == {
        "lot-1/a.png": "OK",
        "lot-1/b.png": "NG",
        "lot-2/a.png": "REVIEW",
        "torn.png": None,
    }
    assert records["lot-2/a.png"]["fields"] == {"lot": "lot-2", "part": "a"}
    listed = bucket.list_objects_v2(Bucket="line-1", Prefix="today/")["Contents"]
    etags = {entry["Key"].removeprefix("today/"): entry["ETag"].strip('"') for entry in listed}
    assert {name: record["etag"] for name, record in records.items()} == etags
    asked = len(triton.requests)
    assert subprocess.run(command, capture_output=True, check=False).returncode == 3
    assert len(triton.requests) == asked


def test_a_bucket_that_is_not_there_or_not_open_is_a_sentence(bucket: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "diffusionad_client", "score", "s3://none/parts"]
    command += ["--output", str(tmp_path / "out")]
    without = {**os.environ, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    without |= {"AWS_EC2_METADATA_DISABLED": "true"}
    for environment in (dict(os.environ), without):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: s3://none/parts: cannot be listed: ")
        assert "Traceback" not in done.stderr


EMULATOR = """
import sys
from gcp_storage_emulator.server import create_server
server = create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="line-1")
server.start()
print("ready", flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, bytes], None]]:
    """Puts objects into a bucket on an emulator of Google's storage."""
    pytest.importorskip("gcsfs", reason="needs diffusionad-client[remote]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [sys.executable, "-W", "ignore", "-c", EMULATOR, str(port)]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")

        def put(name: str, content: bytes) -> None:
            where = f"http://127.0.0.1:{port}/upload/storage/v1/b/line-1/o?uploadType=media&name="
            with urlopen(Request(where + quote(name, safe=""), content, method="POST")):
                pass

        yield put
        process.communicate(b"")


def test_a_bucket_of_google_is_scored_and_only_what_changed_is_scored_again(
    triton: Any,
    google: Callable[[str, bytes], None],
    tmp_path: Path,
    save_image: SaveImage,
) -> None:
    for name, red in (("a.png", 20), ("lot/b.png", 250)):
        google(f"today/{name}", save_image(tmp_path / "image.png", red).read_bytes())
    google("yesterday/a.png", b"no image")
    output = tmp_path / "out"
    command = [sys.executable, "-m", "diffusionad_client", "score", "gs://line-1/today"]
    command += ["--url", triton.url, "--output", str(output), "--no-report"]

    def verdicts() -> dict[str, str | None]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return {row.image: row.verdict for row in read_rows(output)}

    assert verdicts() == {"a.png": "OK", "lot/b.png": "NG"}
    asked = len(triton.requests)
    google("today/a.png", save_image(tmp_path / "image.png", 100).read_bytes())
    assert verdicts() == {"a.png": "REVIEW", "lot/b.png": "NG"}
    assert len(triton.requests) == asked + 1


AZURE_KEY = (  # the one that every Azurite has
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
AZURITE = shutil.which("azurite-blob")


@pytest.mark.long
@pytest.mark.skipif(AZURITE is None, reason="needs Azurite in PATH: npm install --global azurite")
def test_a_container_of_azure_is_listed_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    account = f"AccountName=devstoreaccount1;AccountKey={AZURE_KEY}"
    place = f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1"
    monkeypatch.setenv(
        "AZURE_STORAGE_CONNECTION_STRING", f"DefaultEndpointsProtocol=http;{account};{place};"
    )
    words = [str(AZURITE), "--silent", "--inMemoryPersistence", "--skipApiVersionCheck"]
    with subprocess.Popen([*words, "--blobPort", str(port)], cwd=tmp_path) as azurite:
        try:
            subprocess.run([sys.executable, "-W", "ignore", "-c", FILL_AZURE], check=True)
            first, second = listed_by_another_process("az://line-1/today").splitlines()
        finally:
            azurite.terminate()
    assert (first, second) == ("a.png 5", "deep/b.png 5")


FILL_AZURE = """
import os
from azure.storage.blob import BlobServiceClient
service = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])
service.create_container("line-1")
for name in ("today/a.png", "today/deep/b.png", "today/notes.txt", "yesterday/c.png"):
    service.get_blob_client("line-1", name).upload_blob(b"image")
"""
