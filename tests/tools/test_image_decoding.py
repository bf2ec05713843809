"""The model that decodes images, without a server: what it makes of its configuration."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from numpy.typing import NDArray
from PIL import Image

import diffusionad_tools
from diffusionad_client import contract, images
from diffusionad_tools.release import model_config

MODEL_FILE = Path(diffusionad_tools.__file__).parent / "models" / "image_decoding" / "model.py"


@dataclass
class FakeTensor:
    name: str
    array: NDArray[Any]

    def as_numpy(self) -> NDArray[Any]:
        return self.array


@dataclass
class FakeError:
    message: str
    code: int
    INVALID_ARG = 3


@dataclass
class FakeResponse:
    output_tensors: list[FakeTensor] = field(default_factory=list)
    error: FakeError | None = None


Load = Callable[..., Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, own_priority: None) -> Load:
    """Load the model as Triton's stub does, with parameters of its configuration changed."""
    utils: Any = ModuleType("triton_python_backend_utils")
    utils.Tensor = FakeTensor
    utils.InferenceResponse = FakeResponse
    utils.TritonError = FakeError
    utils.get_input_tensor_by_name = lambda request, name: FakeTensor(name, request[name])
    monkeypatch.setitem(sys.modules, utils.__name__, utils)
    spec = importlib.util.spec_from_file_location("image_decoding_model", MODEL_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def load_model(**parameters: str | None) -> Any:
        config = model_config.decoding_config(32)
        for name, value in parameters.items():
            if value is None:
                del config.parameters[name]
            else:
                config.parameters[name].string_value = value
        document = json_format.MessageToDict(config, preserving_proto_field_name=True)
        model = module.TritonPythonModel()
        model.initialize({"model_config": json.dumps(document)})
        return model

    return load_model


def png(height: int, width: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def ask(model: Any, *files: bytes) -> FakeResponse:
    batch = np.array(files, np.object_)[:, np.newaxis]
    (response,) = model.execute([{contract.IMAGE_BYTES: batch}])
    assert isinstance(response, FakeResponse)
    return response


def test_files_become_a_batch_of_the_models_size(load: Load) -> None:
    files = [png(40, 50), png(32, 32)]
    (tensor,) = ask(load(), *files).output_tensors
    assert tensor.name == contract.IMAGE
    assert tensor.array.dtype == np.uint8
    for decoded, file in zip(tensor.array, files, strict=True):
        np.testing.assert_array_equal(decoded, images.resize(images.load(file), 32))


def test_the_depth_of_the_configuration_decides_where_a_file_states_none(load: Load) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((32, 32), 2048, np.uint16)).save(file, "PNG")
    for parameters, level in (({}, 8), ({"depth": "12"}, 128)):
        (tensor,) = ask(load(**parameters), file.getvalue()).output_tensors
        assert (tensor.array == level).all()


def test_each_request_succeeds_or_fails_by_itself(load: Load) -> None:
    requests = [
        {contract.IMAGE_BYTES: np.array([[file]], np.object_)}
        for file in (png(8, 8), b"no image", png(9, 9))
    ]
    first, broken, last = load().execute(requests)
    assert first.error is None
    assert last.error is None
    assert broken.output_tensors == []
    assert broken.error.code == FakeError.INVALID_ARG
    assert broken.error.message.startswith(f"{contract.BAD_IMAGE} 0 of the request: ")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_pixels": "1999"}, "50 x 40 pixels are more than the 1999"),
        ({"max_bytes": "100"}, "more than the 100 bytes"),
    ],
)
def test_the_limits_are_those_of_the_configuration(
    load: Load, limits: dict[str, str], message: str
) -> None:
    error = ask(load(**limits), png(40, 50)).error
    assert error is not None
    assert message in error.message
    assert ask(load(), png(40, 50)).error is None


@pytest.mark.parametrize("name", ["size", "resize", "max_bytes", "max_pixels"])
def test_a_missing_parameter_fails_the_load(load: Load, name: str) -> None:
    with pytest.raises(Exception, match=f"lacks the parameter '{name}'"):
        load(**{name: None})


@pytest.mark.parametrize("value", ["many", "0", "-1", "1.5"])
def test_a_limit_that_is_no_positive_number_fails_the_load(load: Load, value: str) -> None:
    with pytest.raises(Exception, match=f"max_pixels is '{value}'; give a positive whole number"):
        load(max_pixels=value)


def test_another_resize_than_the_installed_one_fails_the_load(load: Load) -> None:
    with pytest.raises(Exception, match="'nearest-0', the installed diffusionad-client knows"):
        load(resize="nearest-0")
