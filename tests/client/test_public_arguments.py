"""Whatever is given to the public API, what comes back is an answer or a `DiffusionADError`."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from in_memory import InMemory
from PIL import Image

import diffusionad_client
from diffusionad_client import (
    AsyncClient,
    Client,
    Connection,
    DiffusionADError,
    Inspection,
    ReleaseMetadata,
    Thresholds,
)

IMAGE = np.zeros((8, 8, 3), np.uint8)

OF_MANY: dict[str, Any] = {
    "sources": [IMAGE, IMAGE],
    "window": 2,
    "model": None,
    "anomaly_map": False,
    "reconstruction": False,
    "thresholds": None,
    "color": "rgb",
    "decode": "client",
    "encoded": None,
    "priority": None,
    "timeout": None,
}
STREAMS: dict[str, dict[str, Any]] = {"inspect_batch": {}, "inspect_stream": {"ordered": True}}

# Every public callable that takes arguments from a caller, with arguments that are right. A
# new one has to be named here: see the first two tests.
CALLS: dict[str, dict[str, Any]] = {
    "Client": {
        "url": "127.0.0.1:1",
        "model": None,
        "timeout": None,
        "thresholds": None,
        "priority": 1,
        "retry": True,
        "admin_key": None,
        "transport": None,
    },
    "Client.inspect": {
        "image": IMAGE,
        "model": None,
        "anomaly_map": False,
        "reconstruction": False,
        "thresholds": None,
        "color": "rgb",
        "decode": "client",
        "encoded": None,
        "priority": None,
        "timeout": None,
    },
    **{f"Client.{name}": {**OF_MANY, **more} for name, more in STREAMS.items()},
    "Client.stats": {},
    "Client.with_options": {
        "model": None,
        "timeout": None,
        "thresholds": None,
        "priority": None,
        "retry": None,
    },
    "Client.served": {"model": None, "timeout": None},
    "Client.models": {"timeout": None},
    "Client.catalogue": {"timeout": None},
    "Client.load": {"model": "bolt", "timeout": None},
    "Client.unload": {"model": "bolt", "timeout": None},
    "Client.probe": {"model": None, "timeout": None},
    "Client.health": {"timeout": None},
    "Client.close": {},
    "Connection": {
        "url": "127.0.0.1:1",
        "timeout": 3,
        "ca_cert": None,
        "client_cert": None,
        "client_key": None,
        "tls": False,
        "token": None,
        "token_file": None,
        "headers": {},
        "header_files": {},
        "admin_key": None,
        "insecure": False,
    },
    "Thresholds": {"accept": 0.2, "reject": 0.3},
    "Thresholds.as_stored": {"accept": 0.2, "reject": 0.3},
    "Thresholds.with_changes": {"accept": None, "reject": None},
    "Thresholds.verdict": {"score": 0.1},
    "Inspection.judged_by": {"thresholds": Thresholds(0.1, 0.2)},
    "Inspection.anomaly_map_at": {"height": 3, "width": 4},
    "Outcome.result": {},
    "Stats.to_dict": {},
    "Inspection.regions": {},
    "Inspection.regions_at": {"height": 3, "width": 4},
    "Inspection.overlay": {"image": IMAGE, "color": "rgb"},
    "Inspection.to_dict": {},
    "ReleaseMetadata.from_json": {"text": "{}"},
    "ReleaseMetadata.as_exported": {},
    "ReleaseMetadata.to_document": {},
    "ReleaseMetadata.to_json": {},
}
# The same for an event loop.
CALLS |= {f"Async{name}": dict(of) for name, of in CALLS.items() if name.startswith("Client")}
# What the client itself makes, as answers: nobody is asked for their arguments.
ANSWERS = {
    *("Catalogue", "Health", "IdleModel", "Inspection", "Latencies", "Outcome", "Probe"),
    *("RefusedModel", "Region", "ReleaseMetadata", "ServedModel", "ServerHealth", "ServerStats"),
    *("Stats", "Timings"),
}
# Made of metadata that was read, by tools that change a release.
OF_THE_TOOLS = {"ReleaseMetadata.changed"}


def is_kind_of_value(thing: Any) -> bool:
    return issubclass(thing, (DiffusionADError, Enum))


def test_every_public_class_is_in_the_table() -> None:
    names = {
        name
        for name in diffusionad_client.__all__
        if not is_kind_of_value(getattr(diffusionad_client, name))
    }
    assert names - ANSWERS == {name for name in CALLS if "." not in name}


def test_every_public_method_and_each_of_its_arguments_is_in_the_table() -> None:
    methods = {
        f"{name}.{method}"
        for name in diffusionad_client.__all__
        for method, thing in vars(getattr(diffusionad_client, name)).items()
        if not is_kind_of_value(getattr(diffusionad_client, name))
        and not method.startswith("_")
        and callable(getattr(thing, "__func__", thing))
    }
    assert methods - OF_THE_TOOLS == {name for name in CALLS if "." in name}
    for name, arguments in CALLS.items():
        thing = diffusionad_client
        for part in name.split("."):
            thing = getattr(thing, part)
        wanted = set(inspect.signature(thing).parameters) - {"self"}
        assert wanted == set(arguments), name


class InMemoryOfALoop(InMemory):
    """The same for an event loop: what it answers is to be awaited."""

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if name == "metadata" or name.startswith("_"):
            return found

        async def answer(*arguments: Any, **more: Any) -> Any:
            return found(*arguments, **more)

        return answer


async def outcome_of(made: Any) -> Any:
    """Give what a method of a client for an event loop comes to."""
    if isinstance(made, AsyncIterator):
        return [each async for each in made]
    return await made if inspect.isawaitable(made) else made


ARRAYS = st.builds(
    np.zeros,
    st.sampled_from([(), (0,), (3,), (4, 4), (0, 5, 3), (4, 4, 1), (4, 4, 3), (4, 4, 4), (1,) * 9]),
    st.sampled_from(["u1", "f4", "f8", "i8", "?", "O", "c16", "U3", "M8[s]"]),
)
VAST = np.broadcast_to(np.uint8(0), (2**29, 2**29, 3))  # takes no memory as it is
PICTURES = st.builds(
    Image.new,
    st.sampled_from(["1", "L", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16", "HSV", "LAB", "LA"]),
    st.sampled_from([(0, 0), (0, 5), (1, 1), (4, 5)]),
)
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -1, 0, 99999, 2**63, np.int64(3), np.float32(0.5), np.True_]),
    st.floats(),
    st.complex_numbers(),
    st.text(),
    st.sampled_from(["\0", "a\0b", "\ud800:1", "host:99999", "a" * 5000, "5", "..", "/dev/null"]),
    st.text("a1_:-.,/[]", max_size=12),
    st.binary(),
    st.sampled_from([b"\0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"P5 99999999 99999999 255\n"]),
    st.builds(Path, st.sampled_from(["", "\0", "nowhere", "/", "\ud800"])),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.none(), max_size=2),
    st.sampled_from([object(), float, Thresholds(0, 1), Connection(), VAST, Ellipsis]),
    ARRAYS,
    PICTURES,
)
ONE_ARGUMENT = [(name, argument) for name, arguments in CALLS.items() for argument in arguments]


@pytest.fixture
def call(make_metadata: Callable[..., ReleaseMetadata]) -> Iterator[Callable[..., Any]]:
    """Calls a public callable by its name in the table."""
    metadata = make_metadata("bolt")
    with Client("memory", transport=InMemory(metadata)) as client:
        owners: dict[str, Any] = {
            "Client": client,
            "Outcome": next(client.inspect_stream([IMAGE])),
            "Stats": client.stats(),
            "Inspection": client.inspect(IMAGE),
            "ReleaseMetadata": metadata,
            "Thresholds": Thresholds(0.1, 0.2),
        }

        def run(name: str, **arguments: Any) -> Any:
            owner, _, method = name.partition(".")
            if owner == "AsyncClient":
                return asyncio.run(on_a_loop(method, arguments))
            if method:
                found = getattr(owners[owner], method)(**arguments)
                return [*found] if isinstance(found, Iterator) else found
            made = getattr(diffusionad_client, name)(**arguments)
            if isinstance(made, Client):
                made.close()
            return made

        async def on_a_loop(method: str, arguments: dict[str, Any]) -> Any:
            if not method:
                await AsyncClient(**arguments).close()
                return None
            async with AsyncClient("memory", transport=InMemoryOfALoop(metadata)) as client:
                return await outcome_of(getattr(client, method)(**arguments))

        yield run


@pytest.mark.parametrize("name", CALLS)
def test_arguments_that_are_right_give_an_answer(call: Callable[..., Any], name: str) -> None:
    if name == "ReleaseMetadata.from_json":
        return  # read what was written: see test_metadata
    call(name, **CALLS[name])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of what it cannot convert
@pytest.mark.parametrize(("name", "argument"), ONE_ARGUMENT)
def test_an_argument_of_any_kind_gives_an_answer_or_our_error(
    call: Callable[..., Any], name: str, argument: str
) -> None:
    # What an event loop drives are the same steps: a few examples show that it drives them.
    @settings(
        max_examples=10 if name.startswith("Async") else 40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(JUNK)
    @example(VAST)
    @example(10**400)
    @example(10**5000)
    @example("\0")
    @example("5")
    def hold(value: Any) -> None:
        with contextlib.suppress(DiffusionADError):
            call(name, **(CALLS[name] | {argument: value}))

    hold()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), JSON)
def test_metadata_with_any_value_in_any_place_is_read_or_refused(
    make_metadata: Callable[..., ReleaseMetadata], data: st.DataObject, value: Any
) -> None:
    document = make_metadata().to_document()
    target = document
    while True:
        name = data.draw(st.sampled_from(sorted(target)))
        if not isinstance(target[name], dict) or not target[name] or data.draw(st.booleans()):
            break
        target = target[name]
    target[name] = value
    with contextlib.suppress(DiffusionADError):
        read = ReleaseMetadata.from_json(json.dumps(document))
        assert ReleaseMetadata.from_json(read.to_json()) == read


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("Client", {"url": None}, "None is not a server's address; give HOST:PORT"),
        ("Client", {"url": "plant:99999"}, "between 1 and 65535"),
        ("Client", {"timeout": "5"}, "positive number of seconds, at most a year, not '5'"),
        ("Client", {"timeout": float("nan")}, "not nan"),
        ("Client", {"timeout": float("inf")}, "not inf"),
        ("Client", {"model": 5}, "such as 'screw', not 5"),
        ("Client", {"priority": "urgent"}, "Priority.INLINE, Priority.BATCH, not 'urgent'"),
        ("Client", {"thresholds": (0.1, 0.2)}, "given as Thresholds"),
        ("Client", {"admin_key": "short"}, "16 to 256 letters"),
        ("Client.inspect", {"image": "a\0b.png"}, "a\0b.png"),
        ("Client.inspect", {"image": np.zeros((4, 4, 3), np.float32)}, "float32"),
        ("Client.inspect", {"anomaly_map": "no"}, "True or False, not 'no'"),
        ("Client.inspect", {"timeout": 0}, "not 0"),
        ("Inspection.anomaly_map_at", {"height": 2**40}, "cannot be stretched"),
        ("Inspection.anomaly_map_at", {"height": 0}, "of 1 to"),
        ("Thresholds", {"accept": 40, "reject": 50}, r"in \[0, 1\], as scores do, not 40"),
        ("Thresholds", {"accept": "0.1"}, "a number"),
        ("Thresholds.verdict", {"score": "high"}, "'high'"),
    ],
)
def test_a_value_out_of_range_is_shown_with_the_remedy(
    call: Callable[..., Any], name: str, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(DiffusionADError, match=said):
        call(name, **(CALLS[name] | arguments))


def test_a_picture_of_floats_is_not_advised_into_black() -> None:
    """A picture in [0, 1] that is cast to uint8 is black: the advice has to say to scale it."""
    with (
        Client("127.0.0.1:1") as client,
        pytest.raises(DiffusionADError, match="255") as caught,
    ):
        client.inspect(np.full((4, 4, 3), 0.5, np.float32))
    assert "astype" in str(caught.value)


def test_inspections_are_made_by_the_client_alone() -> None:
    assert Inspection.__name__ in ANSWERS
