"""Run a graph on a GPU with its tensors left there: inputs bound by address, outputs by DLPack.

Triton hands tensors over as DLPack capsules and takes them back so, in GPU
memory if the model's parameters say FORCE_CPU_ONLY_INPUT_TENSORS "no". Of
onnxruntime only public calls are used, the same since 1.19: `bind_input` with
an address, `bind_output` with a device. What is missing in between, a view of
some rows of an output, is made here.

Runs inside Triton's stub process: it imports nothing of ours but its neighbours.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from ort_signature import GraphTensor

NUMPY_TYPES: dict[str, type[np.generic]] = {
    "TYPE_UINT8": np.uint8,
    "TYPE_UINT16": np.uint16,
    "TYPE_UINT32": np.uint32,
    "TYPE_UINT64": np.uint64,
    "TYPE_INT8": np.int8,
    "TYPE_INT16": np.int16,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_FP64": np.float64,
}
CUDA_DEVICE = 2  # dlpack.h: kDLCUDA
_TYPE_CODES = {"i": 0, "u": 1, "f": 2}  # dlpack.h: DLDataTypeCode
_UNUSED = b"dltensor"  # a capsule's name until someone takes what is in it


class _Device(ctypes.Structure):
    _fields_ = (("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _ManagedTensor(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


# By address, so that they also take a capsule that is just being destroyed.
_get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_new_capsule = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
)(("PyCapsule_New", ctypes.pythonapi))

# What was handed out and is still in use: address -> the structure and what it points to.
_handed_out: dict[int, tuple[_ManagedTensor, Any, Any]] = {}


def _release(address: int) -> None:
    _handed_out.pop(address, None)


def _release_unused(capsule: int) -> None:
    if _is_valid(capsule, _UNUSED):
        _release(_get_pointer(capsule, _UNUSED))


_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_release)  # takes Python's lock itself
_DESTRUCTOR = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_release_unused)


@dataclass(frozen=True)
class Rows:
    """Some rows of a tensor in device memory, to be taken by DLPack. They keep `owner` alive."""

    owner: Any
    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: tuple[int, int]  # DLPack's type of device, and its number

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        """Give a capsule. The run that computed the rows is over: no stream needs to wait."""
        shape = (ctypes.c_int64 * len(self.shape))(*self.shape)
        bits = 8 * self.dtype.itemsize
        managed = _ManagedTensor(
            _Tensor(
                data=self.address,
                device=_Device(*self.device),
                ndim=len(self.shape),
                dtype=_DataType(_TYPE_CODES[self.dtype.kind], bits, 1),
                shape=shape,
            ),
            deleter=ctypes.cast(_DELETER, ctypes.c_void_p),
        )
        address = ctypes.addressof(managed)
        _handed_out[address] = (managed, shape, self.owner)
        return _new_capsule(address, _UNUSED, ctypes.cast(_DESTRUCTOR, ctypes.c_void_p))


def data_address(capsule: Any) -> tuple[int, tuple[int, ...]]:
    """Read where an unused capsule's data lie, and their shape. Keep the capsule meanwhile."""
    managed = _ManagedTensor.from_address(_get_pointer(id(capsule), _UNUSED))
    tensor = managed.tensor
    return (tensor.data or 0) + tensor.byte_offset, tuple(tensor.shape[: tensor.ndim])


class DeviceRunner:
    """Runs a session whose first provider is a GPU's."""

    def __init__(
        self,
        session: Any,
        device: int,
        inputs: dict[str, GraphTensor],
        outputs: dict[str, GraphTensor],
    ) -> None:
        self._session = session
        self._device = device
        self._types = {
            tensor.name: np.dtype(NUMPY_TYPES[tensor.data_type])
            for tensor in (*inputs.values(), *outputs.values())
        }

    @staticmethod
    def takes(tensors: list[GraphTensor]) -> bool:
        """Tell whether all tensors can lie on a GPU; strings cannot."""
        return all(tensor.data_type in NUMPY_TYPES for tensor in tensors)

    def run(self, parts: list[dict[str, Any]], names: list[str]) -> list[dict[str, Rows]]:
        """Compute the outputs `names` of each request; `parts` are their Triton tensors.

        What lies in the host's memory is one run, whatever the number of
        requests. What lies on the GPU already is run request by request: to put
        it together there would take a library of its own.
        """
        if len(parts) > 1 and not all(t.is_cpu() for part in parts for t in part.values()):
            return [self._run([part], names)[0] for part in parts]
        return self._run(parts, names)

    def _run(self, parts: list[dict[str, Any]], names: list[str]) -> list[dict[str, Rows]]:
        binding = self._session.io_binding()
        in_use = []  # until the run is over
        for name in parts[0]:
            tensors = [part[name] for part in parts]
            if tensors[0].is_cpu():
                arrays = [tensor.as_numpy() for tensor in tensors]
                array = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
                in_use.append(array)
                binding.bind_cpu_input(name, array)
            else:
                capsule = tensors[0].to_dlpack()
                in_use.append(capsule)
                address, shape = data_address(capsule)
                binding.bind_input(
                    name, "cuda", self._device, self._types[name].type, list(shape), address
                )
        for name in names:
            binding.bind_output(name, "cuda", self._device)
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        outputs = dict(zip(names, binding.get_outputs(), strict=True))
        if len(parts) == 1:
            return [{name: self._rows(name, value) for name, value in outputs.items()}]
        first = next(iter(parts[0]))
        ends = np.cumsum([len(part[first].as_numpy()) for part in parts])
        return [
            {name: self._rows(name, value, start, end) for name, value in outputs.items()}
            for start, end in zip([0, *ends[:-1]], ends, strict=True)
        ]

    def _rows(self, name: str, value: Any, start: int = 0, end: int | None = None) -> Rows:
        """View rows `start` to `end` of an output, all by default."""
        shape = tuple(value.shape())
        dtype = self._types[name]
        row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        if end is not None:
            shape = (int(end - start), *shape[1:])
        return Rows(
            owner=value,
            address=value.data_ptr() + int(start) * row_bytes,
            shape=shape,
            dtype=dtype,
            device=(CUDA_DEVICE, self._device),
        )
