"""Triton's methods, as answers to requests: no gRPC server, no faults.

Whatever a method refuses, it raises as a `RefusedError` with Triton's status
and words (2.51).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from diffusionad_client.contract import Step
from diffusionad_client.sdk.admin_key import ADMIN_METADATA
from diffusionad_client.testing.category import FakeCategory
from diffusionad_client.testing.faults import RESTRICTED, RefusedError
from diffusionad_client.testing.models import Model, model_config, model_metadata
from diffusionad_client.testing.tensors import read_batch, write_outputs

Code = grpc.StatusCode

# As Triton 2.51 names its own.
_EXTENSIONS = (
    *("classification", "sequence", "model_repository", "model_repository(unload_dependents)"),
    *("schedule_policy", "model_configuration", "system_shared_memory", "cuda_shared_memory"),
    *("binary_tensor_data", "parameters", "statistics", "trace", "logging"),
)


class Service:
    """What a server with these categories answers. Threads may share it."""

    def __init__(self, categories: dict[str, FakeCategory], admin_key: str | None) -> None:
        self.categories = categories
        self.admin_key = admin_key
        self.ready = True

    def methods(self) -> dict[str, Callable[[Any, Mapping[str, str]], Any]]:
        """Give the methods by their names, each of a request and its headers."""
        return {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelInfer": self._model_infer,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }

    def _server_live(self, request: Any, headers: Mapping[str, str]) -> Any:
        return service_pb2.ServerLiveResponse(live=True)

    def _server_ready(self, request: Any, headers: Mapping[str, str]) -> Any:
        return service_pb2.ServerReadyResponse(ready=self.ready)

    def _server_metadata(self, request: Any, headers: Mapping[str, str]) -> Any:
        return service_pb2.ServerMetadataResponse(
            name="triton", version="2.51.0", extensions=_EXTENSIONS
        )

    def _model_ready(self, request: Any, headers: Mapping[str, str]) -> Any:
        try:
            self._find(request.name, request.version)
        except RefusedError as exc:
            if exc.status is Code.INVALID_ARGUMENT:
                raise
            return service_pb2.ModelReadyResponse(ready=False)
        return service_pb2.ModelReadyResponse(ready=True)

    def _model_metadata(self, request: Any, headers: Mapping[str, str]) -> Any:
        _, model = self._find(request.name, request.version)
        return model_metadata(model)

    def _model_config(self, request: Any, headers: Mapping[str, str]) -> Any:
        category, model = self._find(request.name, request.version)
        config = model_config(model, category.metadata())
        if category.alter_config is not None and model.name in category.forms:
            category.alter_config(config)
        return service_pb2.ModelConfigResponse(config=config)

    def _model_infer(self, request: Any, headers: Mapping[str, str]) -> Any:
        category, model = self._find(request.model_name, request.model_version)
        if model.name not in category.forms:
            words = f"{model.name}: a fake server runs categories, not their steps"
            raise RefusedError(Code.INTERNAL, words)
        batch = read_batch(request, model)
        outputs = [output.name for output in request.outputs]
        everything = [spec.name for spec in model.signature.outputs]
        answer = category.answer(batch, outputs or everything)
        response = service_pb2.ModelInferResponse(
            model_name=model.name, model_version=model.version, id=request.id
        )
        response.parameters["sequence_id"].int64_param = 0
        response.parameters["sequence_start"].bool_param = False
        response.parameters["sequence_end"].bool_param = False
        return write_outputs(response, answer)

    def _index(self, request: Any, headers: Mapping[str, str]) -> Any:
        self._check_key(headers)
        entries: dict[str, tuple[str, str, str]] = {}
        for category in list(self.categories.values()):
            for model in category.models.values():
                entry = _entry(category, model)
                if entries.get(model.name, ("", "", ""))[1] != "READY":  # decoders are shared
                    entries[model.name] = entry
        answer = service_pb2.RepositoryIndexResponse()
        for name, (version, state, reason) in sorted(entries.items()):
            if state == "READY" or not request.ready:
                answer.models.add(name=name, version=version, state=state, reason=reason)
        return answer

    def _load(self, request: Any, headers: Mapping[str, str]) -> Any:
        self._check_key(headers)
        name = request.model_name
        category, model = self._held(name)
        if category is None or model is None:
            words = f"failed to load '{name}', failed to poll from model repository"
            raise RefusedError(Code.INTERNAL, words)
        if category.broken and name in category.forms:
            broken = _segmentation(category)
            words = (
                f"load failed for model '{name}': ensemble '{name}' depends on '{broken.name}' "
                f"which has no loaded version. Model '{broken.name}' loading failed with error: "
                f"version {broken.version} is at UNAVAILABLE state: {category.broken};\n"
            )
            raise RefusedError(Code.INVALID_ARGUMENT, words)
        if name in category.forms:
            category.set_state(name, "READY")
        return service_pb2.RepositoryModelLoadResponse()

    def _unload(self, request: Any, headers: Mapping[str, str]) -> Any:
        self._check_key(headers)
        category, _ = self._held(request.model_name)
        if category is not None and category.state(request.model_name) == "READY":
            category.set_state(request.model_name, "UNAVAILABLE")
        return service_pb2.RepositoryModelUnloadResponse()

    def _held(self, name: str) -> tuple[FakeCategory | None, Model | None]:
        """Find a model of a category, loaded or not."""
        for category in list(self.categories.values()):
            if (model := category.models.get(name)) is not None:
                return category, model
        return None, None

    def _find(self, name: str, version: str) -> tuple[FakeCategory, Model]:
        """Find a model that is ready, and its category as it is now: it may change meanwhile."""
        if version and not version.isdecimal():
            words = (
                f"failed to get model version from specified version string '{version}' (details: "
                "stol), version should be an integral value > 0"
            )
            raise RefusedError(Code.INVALID_ARGUMENT, words)
        for held in list(self.categories.values()):
            category = copy.copy(held) if name in held.models else held
            model = category.models.get(name)
            if model is not None and (state := _entry(category, model)[1]):
                return category, _ready(model, version, state)
        raise RefusedError(Code.NOT_FOUND, f"Request for unknown model: '{name}' is not found")

    def _check_key(self, headers: Mapping[str, str]) -> None:
        if self.admin_key is not None and headers.get(ADMIN_METADATA) != self.admin_key:
            raise RefusedError(Code.UNAVAILABLE, RESTRICTED)


def _ready(model: Model, version: str, state: str) -> Model:
    """Give a model if that version of it is ready; "" stands for any."""
    unknown = f"Request for unknown model: '{model.name}'"
    if version not in ("", model.version):
        raise RefusedError(Code.NOT_FOUND, f"{unknown} version {version} is not found")
    if state != "READY" and version:
        raise RefusedError(Code.UNAVAILABLE, f"{unknown} version {version} is not at ready state")
    if state != "READY":
        raise RefusedError(Code.NOT_FOUND, f"{unknown} has no available versions")
    return model


def _entry(category: FakeCategory, model: Model) -> tuple[str, str, str]:
    """Give a model's version, state and reason in the repository's list."""
    if model.name in category.forms:
        users = [model.name]
    elif model.step is None:  # the one that decodes
        users = category.forms[1:]
    else:
        users = category.forms
    states = {category.state(form) for form in users}
    if category.broken and model.step is not None and "READY" not in states:
        if model.name == _segmentation(category).name:
            return model.version, "UNAVAILABLE", category.broken
        return model.version, "READY", ""
    if "READY" in states:
        return model.version, "READY", ""
    if "UNAVAILABLE" in states:
        return model.version, "UNAVAILABLE", "unloaded"
    return "", "", ""


def _segmentation(category: FakeCategory) -> Model:
    (found,) = (m for m in category.models.values() if m.step is Step.SEGMENTATION)
    return found
