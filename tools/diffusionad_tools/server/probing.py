"""Notice a server that lives and answers nobody, with an image of our own now and then.

A process that died or was stopped is seen from outside (watch.py). One that
computes without end, or waits for a device that hangs, looks like one at work:
only a request that nobody answers tells. Triton waits for it for ever.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator

from diffusionad_client import contract
from diffusionad_client.grey import LEVEL, grey_file
from diffusionad_tools.errors import RepositoryError
from diffusionad_tools.release import model_config
from diffusionad_tools.server import private_line
from diffusionad_tools.server.private_line import ModelInput
from diffusionad_tools.server.site import Site

PATIENCE = 2.0  # intervals that an answer may take
_ASK_S = 5.0  # for the list of loaded models


class Probing:
    """Sends a grey image through each category in turn; a context for as long as it does.

    Any answer counts, a refusal too: a full queue is one of a server that lives, and what
    else a refusal means, others notice.
    """

    def __init__(self, site: Site, every_s: float) -> None:
        self._site = site
        self._every_s = every_s
        self._over = threading.Event()
        self._fault: str | None = None
        self._thread = threading.Thread(target=self._probe, name="probing", daemon=True)

    def __enter__(self) -> Probing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()  # nobody waits for the thread: it may wait for an answer

    def fault(self) -> str | None:
        """Name the category that gives no answer; None if there is none."""
        return self._fault

    def _probe(self) -> None:
        patience = PATIENCE * self._every_s
        while not self._over.wait(self._every_s):
            for model, given in self._inputs():
                if not private_line.answers(self._site.http_socket, model, given, timeout=patience):
                    self._fault = f"{model} has given no answer to an image for {patience:g} s"
                    return
                if self._over.is_set():
                    return

    def _inputs(self) -> Iterator[tuple[str, ModelInput]]:
        """Name what is loaded and takes images, each with one that it takes."""
        site = self._site
        loaded = private_line.loaded_models(site.http_socket, site.keys.admin, timeout=_ASK_S)
        for name in sorted(loaded or ()):
            if (given := self._input(name)) is not None:
                yield name, given

    def _input(self, name: str) -> ModelInput | None:
        try:
            config = model_config.read(self._site.settings.repository / name / "config.pbtxt")
        except RepositoryError:  # it has just been taken away
            return None
        if contract.METADATA_PARAMETER not in config.parameters:  # a step, or none of ours
            return None
        (taken,) = config.input
        if taken.name == contract.IMAGE_BYTES:
            file = grey_file()
            element = struct.pack("<I", len(file)) + file  # as elements of BYTES are
            return ModelInput(taken.name, "BYTES", (1, *taken.dims), element)
        height, width, channels = taken.dims
        grey = bytes([LEVEL]) * (height * width * channels)
        return ModelInput(taken.name, "UINT8", (1, height, width, channels), grey)
