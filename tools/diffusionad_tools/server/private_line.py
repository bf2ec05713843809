"""A line to Triton that nobody else has: HTTP on a Unix socket in a folder of our own.

`serve` asks over it whether the server is ready and what it has loaded. So it
needs neither a certificate nor a client's key, whatever the server demands of
those who call it over the network. Images for a probe go over it too.
"""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from pathlib import Path

from diffusionad_client import contract
from diffusionad_client.sdk.admin_key import ADMIN_HEADER


class UnixConnection(http.client.HTTPConnection):
    """HTTP to what listens on a Unix socket; `timeout` is in seconds, for each step."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect, as the first request does by itself."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def is_ready(path: Path, *, timeout: float) -> bool:
    """Tell whether the server that listens on `path` says that it is ready."""
    return _ask(path, "GET", "/v2/health/ready", {}, timeout) is not None


def loaded_models(path: Path, admin_key: str, *, timeout: float) -> set[str] | None:
    """Name the models that are ready; None if the server does not say."""
    answer = _ask(path, "POST", "/v2/repository/index", {ADMIN_HEADER: admin_key}, timeout)
    if answer is None:
        return None
    return {entry["name"] for entry in json.loads(answer) if entry.get("state") == "READY"}


@dataclass(frozen=True)
class ModelInput:
    """The one input of a model, and what to send in it."""

    name: str
    datatype: str  # as KServe's protocol has it: UINT8, BYTES
    shape: tuple[int, ...]
    content: bytes


def answers(path: Path, model: str, given: ModelInput, *, timeout: float) -> bool:
    """Tell whether a request gets an answer within `timeout` seconds, be it a refusal."""
    about = {
        "id": contract.PROBE_ID,
        "parameters": {"priority": int(contract.Priority.INLINE)},
        "inputs": [
            {
                "name": given.name,
                "datatype": given.datatype,
                "shape": given.shape,
                "parameters": {"binary_data_size": len(given.content)},
            }
        ],
        "outputs": [{"name": contract.SCORE, "parameters": {"binary_data": True}}],
    }
    head = json.dumps(about).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }
    connection = UnixConnection(path, timeout)
    try:
        connection.request("POST", f"/v2/models/{model}/infer", head + given.content, headers)
        connection.getresponse().read()
    except TimeoutError:
        return False
    except (OSError, http.client.HTTPException):
        return True  # it hung up, as one does that ends: others see to that
    finally:
        connection.close()
    return True


def _ask(
    path: Path, method: str, what: str, headers: dict[str, str], timeout: float
) -> bytes | None:
    """Give the answer, None if there is none or it is a refusal."""
    connection = UnixConnection(path, timeout)
    try:
        connection.request(method, what, headers={"Content-Length": "0", **headers})
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return answer if response.status == http.client.OK else None
