"""Prove what a repository serves: its files, then its answers on a real Triton.

Each category is served by itself, from links to its models, so that one that
is broken says nothing about the others. Its answers are held against the
references that `release add` kept, so torch's answers are known here without
torch; in raw batches of every size from one image to the largest, because a
fault may show in some of them only.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

from diffusionad_client import contract
from diffusionad_client.artifacts.bundle import References
from diffusionad_client.errors import DiffusionADError, ServerUnavailableError
from diffusionad_client.local_server import STARTUP_S
from diffusionad_client.sdk.client import Client
from diffusionad_client.sdk.transports.grpc import GrpcTransport
from diffusionad_tools.errors import RepositoryError
from diffusionad_tools.release import gate, model_config
from diffusionad_tools.release.check import (
    category_problems,
    graph,
    graph_problems,
    served_forms,
)
from diffusionad_tools.release.gate import Difference
from diffusionad_tools.release.graphs import check_graph
from diffusionad_tools.release.judged import misjudged
from diffusionad_tools.release.references import read_kept
from diffusionad_tools.release.repository import (
    CONFIG_FILE,
    Category,
    Release,
    category_folders,
    check_exists,
    models,
    read_category,
)
from diffusionad_tools.server.process import ServerSettings, running_server

_TIMEOUT_S = 120.0  # one image, of the largest model, on a slow CPU
_SHOWN = 5


@dataclass(frozen=True)
class Check:
    """One thing that must hold, and what was found."""

    what: str
    passed: bool
    details: list[str] = field(default_factory=list)


def names_to_validate(repository: Path, category: str | None) -> list[str]:
    """Name the categories to look at: the one given, or all, broken ones among them.

    Raises `RepositoryError` if there is no such category, or none at all.
    """
    check_exists(repository)
    found = category_folders(repository)
    if category is None and found:
        return found
    if category not in found:
        known = ", ".join(found) or "no category"
        wanted = "nothing to validate" if category is None else f"no category {category!r}"
        raise RepositoryError(f"{repository}: {wanted}; it holds {known}")
    return [category]


def validate_category(
    repository: Path, category: str, *, ready_timeout: float = STARTUP_S
) -> list[Check]:
    """Check one category, from its files to its answers.

    What rests on a check that failed is left out, and the failure says so.
    """
    checks = [_of_problems("configurations", lambda: _config_problems(repository, category))]
    if not checks[-1].passed:
        return [*checks, Check("graphs and answers: not checked, because of the above", False)]
    read = read_category(repository, category)
    served = read.release()
    checks.append(_of_problems("graphs", lambda: _graph_problems(repository, served)))
    if not checks[-1].passed:
        return [*checks, Check("answers: not checked, because of the above", False)]
    try:
        for check in _served_checks(read, served, ready_timeout):
            checks.append(check)
    except DiffusionADError as exc:
        checks.append(Check("answers", False, str(exc).splitlines()))
    return checks


def _of_problems(what: str, find: Callable[[], list[str]]) -> Check:
    try:
        problems = find()
    except DiffusionADError as exc:
        problems = str(exc).splitlines()
    return Check(what, not problems, problems)


def _config_problems(repository: Path, category: str) -> list[str]:
    problems = category_problems(repository, category)
    if not problems and not (repository / category).exists():
        return [
            f"{repository / category}: missing, there are steps of it only: an interrupted "
            "`release add`; add the release again, or remove them"
        ]
    if not problems:
        served = {form.version for form in served_forms(repository, category).values()}
        if len(served) > 1:
            return [
                f"{category} and its encoded form serve different versions, {sorted(served)}: an "
                "interrupted command; run it again"
            ]
    return problems


def _graph_problems(repository: Path, served: Release) -> list[str]:
    problems = graph_problems(repository, served)
    if not problems:
        for step in served.step_versions:
            check_graph(graph(repository, served, step), step, served.metadata)
    return problems


def _served_checks(read: Category, served: Release, ready_timeout: float) -> Iterator[Check]:
    repository, category = read.repository, read.name
    references = read_kept(repository, served)
    with tempfile.TemporaryDirectory(prefix="diffusionad-validate-") as view:
        decoder = contract.decoding_model(served.metadata.size, served.metadata.depth)
        encoded = len(read.ensembles) > 1
        for model in (*models(repository, category), *([decoder] if encoded else [])):
            if (repository / model).exists():  # else a step of another contract
                os.symlink((repository / model).resolve(), Path(view, model))
        settings = ServerSettings(repository=Path(view), ready_timeout=ready_timeout)
        with running_server(settings) as server:
            url = server.grpc_url
            try:
                yield Check("every model is ready", *_verdict(_unready(url, read, served)))
                yield Check("every warmup ran", *_verdict(_cold(url, repository, served)))
                yield Check("metadata as served", *_verdict(_wrongly_told(url, served)))
                yield _answers(repository, url, served, references)
                judged = misjudged(
                    *(url, served.metadata, references.images),
                    encoded=encoded,
                    timeout=_TIMEOUT_S * len(references.images),
                )
                yield Check("judged as the release says", *_verdict(judged))
                if encoded:
                    problems = _as_files(url, category, references)
                    yield Check("files get the scores of their pixels", *_verdict(problems))
            except ServerUnavailableError:
                server.check_alive()  # has the reason, if it died
                raise


def _verdict(problems: Iterable[str]) -> tuple[bool, list[str]]:
    found = list(problems)
    return not found, found


def _unready(url: str, read: Category, served: Release) -> Iterator[str]:
    expected = {(name, str(served.version)) for name in read.ensembles}
    expected |= {(model, str(version)) for model, version in served.pins.items()}
    decoder = read.decoding_version(served.metadata)
    if decoder is not None:
        model = contract.decoding_model(served.metadata.size, served.metadata.depth)
        expected.add((model, str(decoder)))
    with closing(GrpcTransport(url)) as transport:
        index = transport.index(timeout=_TIMEOUT_S)
    ready = {(entry.model, entry.version) for entry in index if entry.ready}
    for model, wanted in sorted(expected - ready):
        yield f"{model} version {wanted} is not ready"


def _cold(url: str, repository: Path, served: Release) -> Iterator[str]:
    """Name the steps that have not run although a warmup is configured. Before any request."""
    with triton.InferenceServerClient(url) as client:
        for model, version in served.pins.items():
            warmups = model_config.read(repository / model / CONFIG_FILE).model_warmup
            (about,) = client.get_inference_statistics(model, str(version)).model_stats
            if warmups and about.inference_count == 0:
                yield f"{model} version {version} was not warmed up when it was loaded"


def _wrongly_told(url: str, served: Release) -> Iterator[str]:
    category = served.metadata.category
    with Client(url, category, retry=False) as client:
        told = client.served(timeout=_TIMEOUT_S)
    if told.version != str(served.version):
        yield f"the server has version {told.version}, the repository serves {served.version}"
    if told.metadata != served.metadata:
        yield f"the server tells of release {told.metadata.release}, not {served.metadata.release}"


def _answers(repository: Path, url: str, served: Release, references: References) -> Check:
    """Ask for the references in batches of every size that the ensemble takes."""
    category = served.metadata.category
    largest = model_config.read(repository / category / CONFIG_FILE).max_batch_size
    with closing(GrpcTransport(url)) as transport:
        asked = {size: _ask(transport, served, references, size) for size in range(1, largest + 1)}
    everything = [difference for differences in asked.values() for difference in differences]
    tolerance = gate.TOLERANCES[served.metadata.precision]
    details = [
        f"largest difference of a score "
        f"{max(d.distance for d in everything):.2g} (tolerance "
        f"{tolerance.score:g}), of a map {max(d.map for d in everything):.2g} "
        f"(tolerance {tolerance.map:g})"
    ]
    failed = [(size, d) for size, found in asked.items() for d in found if not d.within_tolerance]
    details += [f"in a batch of {size}, {difference}" for size, difference in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        details.append(f"and {len(failed) - _SHOWN} more")
    what = f"answers to {len(references.images)} references, in batches of 1 to {largest}"
    return Check(what, not failed, details)


def _as_files(url: str, category: str, references: References) -> Iterator[str]:
    with Client(url, category, retry=False, timeout=_TIMEOUT_S) as client:
        ask = partial(client.inspect, anomaly_map=False, reconstruction=False)
        scores = [ask(image).score for image in references.images]
        yield from gate.different_as_files(client, references.images, scores)


def _ask(
    transport: GrpcTransport, served: Release, references: References, size: int
) -> list[Difference]:
    """Send one batch of references, the first ones again where there are too few."""
    thresholds = served.metadata.thresholds
    chosen = np.arange(size) % len(references.images)
    answer = transport.infer(
        served.metadata.category,
        references.images[chosen],
        [contract.SCORE, contract.ANOMALY_MAP],
        priority=contract.Priority.BATCH,  # the server may be one that works
        timeout=_TIMEOUT_S * size,
    )
    scores, maps = answer.outputs[contract.SCORE], answer.outputs[contract.ANOMALY_MAP]
    return [
        Difference(
            image=int(index),
            expected_score=float(references.scores[index]),
            score=float(score),
            map=float(np.abs(found - references.anomaly_maps[index]).max()),
            verdict=thresholds.verdict(float(score)),
            thresholds=thresholds,
            tolerance=gate.TOLERANCES[served.metadata.precision],
        )
        for index, score, found in zip(chosen, scores[:, 0], maps, strict=True)
    ]
