"""A release made by hand: ONNX graphs whose answers numpy can compute, and servers to put them on.

The graphs have the contract's tensors at 32 pixels. What they compute is no
diffusion, only different at every step, so that a wrong wiring is noticed:

    x               = IMAGE scaled to [-1, 1]
    noisy           = [x, x / 2]           predicted_noise = [gain * x, x / 4]
    reconstruction  = noisy - predicted_noise, of the small step
    ANOMALY_MAP     = mean over channels of |x - reconstruction| / 2
    SCORE           = mean of the 50 highest pixels of the map
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from ports import free_port
from tritonclient.grpc import model_config_pb2 as pb

from diffusionad_client import contract
from diffusionad_client.artifacts.bundle import (
    AGREEMENT_FILE,
    METADATA_FILE,
    REFERENCES_FILE,
    AgreementSet,
    Bundle,
    References,
    file_digest,
    graph_path,
    read_bundle,
    write_agreement_set,
    write_references,
)
from diffusionad_client.artifacts.metadata import (
    Agreement,
    Calibration,
    GateRecord,
    Precision,
    ReleaseMetadata,
    Thresholds,
    TrainingSummary,
    release_digest,
)
from diffusionad_client.contract import FULL_DEPTH, NETWORK_STEPS, Step
from diffusionad_tools.release import gate, model_config
from diffusionad_tools.release.add import Addition, add_release
from diffusionad_tools.release.candidate import Candidate, lay_out
from diffusionad_tools.release.publish import publish
from diffusionad_tools.release.repository import read_category, served_release
from diffusionad_tools.release.staging import staging
from diffusionad_tools.server.process import ServerSettings, TritonProcess, running_server

SIZE = 32
OPSET = 18
LOG_LINES = 60  # of a server that has died: its last steps, and where it was
PIXEL_THRESHOLD = 0.25
ONNX_TYPES = {"UINT8": TensorProto.UINT8, "FP32": TensorProto.FLOAT}


@dataclass(frozen=True)
class HandmadeModel:
    """The computation of the graphs above. A larger `gain` finds more anomaly everywhere."""

    size: int = SIZE
    gain: float = 0.5
    # 3 is no real one: there the large step's noise does not travel.
    agreed: int = 1

    def answer(self, image: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32], Any]:
        """Compute score, anomaly map and reconstruction of one image with numpy."""
        x = image.astype(np.float32) / np.float32(127.5) - 1
        normal = x - np.float32(self.gain) * x
        anomaly_map = np.abs(x - normal).mean(axis=-1) / 2
        score = np.sort(anomaly_map.ravel())[-contract.TOP_PIXELS :].mean()
        picture = np.clip(np.rint((normal + 1) * 127.5), 0, 255).astype(np.uint8)
        return float(score), anomaly_map, picture

    def images(self, count: int, seed: int = 0) -> NDArray[np.uint8]:
        """Draw random images of the model's size."""
        rng = np.random.default_rng(seed)
        return rng.integers(0, 256, (count, self.size, self.size, 3), dtype=np.uint8)

    def graph(self, step: Step) -> onnx.ModelProto:
        """Build one step's graph."""
        signature = contract.step_signature(step, self.size, self.agreed)
        nodes, constants = {
            Step.NOISE_PREDICTION: self._noise_prediction,
            Step.RECONSTRUCTION: self._reconstruction,
            Step.SEGMENTATION: self._segmentation,
        }[step]()
        graph = helper.make_graph(
            nodes,
            step.value,
            [_declare(spec) for spec in signature.inputs],
            [_declare(spec) for spec in signature.outputs],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = 9
        onnx.checker.check_model(model, full_check=True)
        return model

    def _noise_prediction(self) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
        node = helper.make_node
        travelling = ["small_noise", "large_noise"] if self.agreed < 3 else ["small_noise"]
        nodes = [
            *_scaled_image("x"),
            node("Unsqueeze", ["x", "one"], ["x5"]),  # (N, 1, 3, S, S)
            node("Mul", ["x5", "half"], ["x_half"]),
            node("Concat", ["x5", "x_half"], [contract.NOISY], axis=1),
            node("Mul", ["x5", "gain"], ["small_noise"]),
            node("Mul", ["x_half", "half"], ["large_noise"]),
            node("Concat", travelling, [contract.PREDICTED_NOISE], axis=1),
        ]
        return nodes, {
            **_SCALING,
            "one": np.array([1]),
            "half": np.float32(0.5),
            "gain": np.float32(self.gain),
        }

    def _reconstruction(self) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
        node = helper.make_node
        nodes = [
            node("Sub", [contract.NOISY, contract.PREDICTED_NOISE], ["both"]),
            node("Gather", ["both", "small"], [contract.NORMAL], axis=1),
            node("Add", [contract.NORMAL, "unit"], ["shifted"]),
            node("Mul", ["shifted", "half_range"], ["grey"]),
            node("Round", ["grey"], ["rounded"]),
            node("Clip", ["rounded", "black", "white"], ["clipped"]),
            node("Cast", ["clipped"], ["bytes"], to=TensorProto.UINT8),
            node("Transpose", ["bytes"], [contract.RECONSTRUCTION], perm=[0, 2, 3, 1]),
        ]
        return nodes, {
            "small": np.array(0),
            "unit": np.float32(1),
            "half_range": np.float32(127.5),
            "black": np.float32(0),
            "white": np.float32(255),
        }

    def _segmentation(self) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
        node = helper.make_node
        nodes = [
            *_scaled_image("x"),
            node("Sub", ["x", contract.NORMAL], ["difference"]),
            node("Abs", ["difference"], ["distance"]),
            node("ReduceMean", ["distance", "channel"], ["mean"], keepdims=0),
            node("Mul", ["mean", "half"], [contract.ANOMALY_MAP]),
            node("Flatten", [contract.ANOMALY_MAP], ["pixels"]),
            node("TopK", ["pixels", "top"], ["highest", "where"]),
            node("ReduceMean", ["highest", "channel"], [contract.SCORE], keepdims=1),
        ]
        return nodes, {
            **_SCALING,
            "channel": np.array([1]),
            "half": np.float32(0.5),
            "top": np.array([contract.TOP_PIXELS]),
        }


_SCALING = {"half_range": np.float32(127.5), "unit": np.float32(1)}


def _scaled_image(name: str) -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        node("Cast", [contract.IMAGE], ["grey"], to=TensorProto.FLOAT),
        node("Div", ["grey", "half_range"], ["scaled"]),
        node("Sub", ["scaled", "unit"], ["channels_last"]),
        node("Transpose", ["channels_last"], [name], perm=[0, 3, 1, 2]),
    ]


def _declare(spec: contract.TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, ONNX_TYPES[spec.dtype], ["batch", *spec.dims])


_LOWERED: dict[str, Any] = {
    "precision": Precision.INT8,
    "agreement": Agreement(images=8, anomalous=4, spearman=1, verdict_flips=0, auroc_loss=0),
    "speedup": 1.5,
}


@dataclass(frozen=True)
class BundleMaker:
    """Writes release bundles below a folder."""

    folder: Path

    def __call__(
        self,
        *,
        category: str = "widget",
        model: HandmadeModel | None = None,
        thresholds: Thresholds | None = None,
        score_error: float = 0.0,
        images: int = 2,
        metrics: dict[str, float | None] | None = None,
        agreement_set: AgreementSet | None = None,
        depth: int = FULL_DEPTH,
    ) -> Bundle:
        """Write the bundle of a model; its references are off by `score_error`.

        With an `agreement_set` the bundle says that its graphs are int8.
        """
        model = model or HandmadeModel()
        thresholds = thresholds or Thresholds(accept=0.2, reject=0.3)
        folder = self.folder / f"bundle-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        for step in NETWORK_STEPS:
            onnx.save(model.graph(step), graph_path(folder, step))
        digests = {step.value: file_digest(graph_path(folder, step)) for step in NETWORK_STEPS}
        metadata = ReleaseMetadata(
            category=category,
            release=release_digest(
                category=category,
                digests=digests,
                thresholds=thresholds,
                pixel_threshold=PIXEL_THRESHOLD,
                depth=depth,
            ),
            preset="handmade",
            size=model.size,
            thresholds=thresholds,
            pixel_threshold=PIXEL_THRESHOLD,
            calibration=Calibration(good_images=4, false_reject_rate=0.01, review_rate=0.05),
            training=TrainingSummary(images=4, steps=1, seed=0, data_digest="0" * 64),
            digests=digests,
            metrics=metrics or {},
            depth=depth,
            contract=model.agreed,
            **({} if agreement_set is None else _LOWERED),
        )
        if agreement_set is not None:
            write_agreement_set(folder / AGREEMENT_FILE, agreement_set)
        (folder / METADATA_FILE).write_text(metadata.to_json(), encoding="utf-8")
        drawn = model.images(images)
        answers = [model.answer(image) for image in drawn]
        write_references(
            folder / REFERENCES_FILE,
            References(
                drawn,
                np.array([score + score_error for score, _, _ in answers], np.float32),
                np.array([anomaly_map for _, anomaly_map, _ in answers], np.float32).reshape(
                    images, model.size, model.size
                ),
            ),
        )
        return read_bundle(folder)


@pytest.fixture(autouse=True)
def temporary_files_below_pytests(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Servers that fail on purpose leave their logs, killed ones their backend folders."""
    folder = str(tmp_path_factory.mktemp("temporary"))
    monkeypatch.setenv("TMPDIR", folder)  # for processes that tests start
    monkeypatch.setattr(tempfile, "tempdir", folder)


@pytest.fixture(autouse=True)
def shared_servers_live(request: pytest.FixtureRequest) -> None:
    """A test whose server has died under an earlier one says so, and nothing that puzzles."""
    if died := dead_servers(request.node.funcargs):
        pytest.fail(f"before this test, under one that shares its server: {died}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the failure of a test what its server said when it died."""
    report = yield
    failed = call.when == "call" and report.failed and isinstance(item, pytest.Function)
    if failed and (died := dead_servers(item.funcargs)):
        report.sections.append(("Servers that have died", died))
    return report


@pytest.fixture(scope="session")
def what_died() -> Callable[[Mapping[str, Any]], str]:
    return dead_servers


def dead_servers(fixtures: Mapping[str, Any]) -> str:
    """Say of the servers among fixtures, and in their fields, which have died, with their log."""
    held = [
        value
        for fixture in fixtures.values()
        for value in (
            [getattr(fixture, field.name) for field in fields(fixture)]
            if is_dataclass(fixture) and not isinstance(fixture, type)
            else [fixture]
        )
    ]
    said = []
    for server in held:
        if isinstance(server, TritonProcess) and (fault := server.fault()) is not None:
            log = server.log_file.read_text(errors="replace").splitlines()
            said.append("\n".join([fault, f"The end of {server.log_file}:", *log[-LOG_LINES:]]))
    return "\n".join(said)


@pytest.fixture(autouse=True)
def without_syncing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk would take most of the tests' time, and no test can tell it from not."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="session")
def handmade_model() -> type[HandmadeModel]:
    return HandmadeModel


@pytest.fixture(scope="session")
def bundles_in() -> Callable[[Path], BundleMaker]:
    """For fixtures that outlive one test: gives what `make_bundle` is, for a folder."""

    def make(folder: Path) -> BundleMaker:
        folder.mkdir()
        return BundleMaker(folder)

    return make


@pytest.fixture
def make_bundle(bundles_in: Callable[[Path], BundleMaker], tmp_path: Path) -> BundleMaker:
    return bundles_in(tmp_path / "bundles")


@pytest.fixture(scope="module")
def shared_bundles(tmp_path_factory: pytest.TempPathFactory) -> BundleMaker:
    """Makes bundles for a server that a module's tests share."""
    return BundleMaker(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def bundle_maker() -> type[BundleMaker]:
    """Makes bundles for fixtures that outlive one test."""
    return BundleMaker


@pytest.fixture
def add_ungated(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Addition]:
    """The whole of `release add`, but for what takes long: loading graphs and asking a server.

    And by default without the encoded form, whose processes every server would start.
    """

    def agree(candidate: Candidate, references: References, **_: object) -> GateRecord:
        return GateRecord(
            references=len(references.images),
            score_difference=0.0,
            score_tolerance=1e-3,
            map_difference=0.0,
            map_tolerance=5e-3,
            server="nobody",
            onnxruntime="none",
        )

    def add(bundle: Bundle, repository: Path, **options: Any) -> Addition:
        monkeypatch.setattr(gate, "compare", agree)
        monkeypatch.setattr("diffusionad_tools.release.add.check_graphs", lambda bundle: None)
        options.setdefault("encoded", False)
        options.setdefault("say", lambda line: None)
        return add_release(bundle.folder, repository, **options)

    return add


def publish_bundle(
    bundle: Bundle, repository: Path, *, encoded: bool = False, cores: int = 1
) -> Candidate:
    with staging(repository) as folder:
        category = read_category(repository, bundle.metadata.category)
        candidate = lay_out(bundle, category, folder / "candidate", encoded=encoded, cores=cores)
        publish(candidate, category)
    return candidate


@pytest.fixture(scope="session")
def publish_ungated() -> Callable[..., Candidate]:
    """Publishes a bundle without asking a server first, which takes seconds.

    By default without the encoded form, whose processes every server would start.
    """
    return publish_bundle


@pytest.fixture
def publish_under(
    publish_ungated: Callable[..., Candidate], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Publishes as the tools of a contract did, which is the first argument."""

    def publish(agreed: int, *arguments: Any, **options: Any) -> None:
        def published(metadata: ReleaseMetadata) -> ReleaseMetadata:
            return replace(metadata, contract=agreed)

        with monkeypatch.context() as patch:
            patch.setattr("diffusionad_tools.release.candidate.published", published)
            publish_ungated(*arguments, **options)

    return publish


@pytest.fixture(scope="session")
def encoded_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the handmade model and its encoded form. Leave it as it is."""
    repository = tmp_path_factory.mktemp("encoded") / "repository"
    bundle = BundleMaker(tmp_path_factory.mktemp("bundles"))()
    publish_bundle(bundle, repository, encoded=True)
    return repository


@pytest.fixture(scope="session")
def encoded_server(encoded_repository: Path) -> Iterator[TritonProcess]:
    settings = ServerSettings(repository=encoded_repository, http_port=0, metrics_port=0)
    with running_server(settings) as server:
        yield server


@dataclass
class ServeCommand:
    """`diffusionad serve` in a process of its own, on free ports."""

    process: subprocess.Popen[str]

    def read_line(self) -> str:
        """Read a line of standard output; empty if the command ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def finish(self) -> tuple[int, str]:
        """Wait for the end; give the exit code and standard error."""
        _, stderr = self.process.communicate(timeout=60)
        return self.process.returncode, stderr

    def descendants(self) -> list[int]:
        """Process ids of all living processes started below the command."""
        found: list[int] = []
        parents = [self.process.pid]
        children = _children()
        while parents:
            below = children.get(parents.pop(), [])
            found += below
            parents += below
        return found


@pytest.fixture
def start_serve(tmp_path: Path) -> Iterator[Callable[..., ServeCommand]]:
    started: list[ServeCommand] = []

    def start(repository: Path, *options: str, log_file: bool = True) -> ServeCommand:
        log = ("--log-file", str(tmp_path / "triton.log")) if log_file else ()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "diffusionad_client", "serve"),
                *("--repository", str(repository), *log),
                *("--grpc-port", "0", "--metrics-port", "0"),
                *("--model-config-name", "default"),  # whatever this machine has
                *options,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(ServeCommand(process))
        return started[-1]

    yield start
    for command in started:
        if command.process.poll() is None:
            command.process.send_signal(signal.SIGTERM)
            command.finish()
        for stream in (command.process.stdin, command.process.stdout, command.process.stderr):
            if stream is not None:
                stream.close()


def _children() -> dict[int, list[int]]:
    """Map each process id to its living children, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            state = process_state(int(entry))
            if state is not None:
                children.setdefault(state[1], []).append(int(entry))
    return children


def process_state(pid: int) -> tuple[str, int] | None:
    """Give a process's state letter and parent; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else (fields[0], int(fields[1]))


@pytest.fixture(scope="session")
def stubs_of() -> Callable[[int], list[int]]:
    """Gives the process ids of the stubs below a tritonserver."""
    return lambda pid: _children().get(pid, [])


@pytest.fixture(scope="session")
def is_alive() -> Callable[[int], bool]:
    return lambda pid: process_state(pid) is not None


@pytest.fixture(scope="session")
def what_triton_would_serve() -> Callable[[Path], dict[str, str]]:
    return _what_triton_would_serve


def _what_triton_would_serve(repository: Path) -> dict[str, str]:
    """Map each category to its release, by the rules with which Triton loads a repository.

    Fails if there is anything that Triton would refuse: one refused model stops the server.
    """
    if not repository.exists():
        return {}
    models = {folder.name: folder for folder in repository.iterdir() if folder.is_dir()}
    configs = {name: model_config.read(path / "config.pbtxt") for name, path in models.items()}
    served = {name: _served_versions(models[name], config) for name, config in configs.items()}
    releases = {}
    for name, config in configs.items():
        assert config.name == name
        assert served[name], f"{name} serves no version"
        for version in served[name]:
            folder = models[name] / str(version)
            assert folder.is_dir(), f"{name} lacks version {version}"
            if config.platform != "ensemble":
                file = "model.py" if config.backend == "python" else "model.onnx"
                assert (folder / file).stat().st_size > 0
        for step in config.ensemble_scheduling.step:
            assert step.model_version in served[step.model_name]
        if config.platform == "ensemble":
            release = served_release(repository, name)
            assert release is not None
            releases[name] = release.metadata.release
            for step, digest in release.metadata.digests.items():
                version = release.step_versions[Step(step)]
                model = release.step_model(Step(step))
                assert file_digest(models[model] / str(version) / "model.onnx") == digest
    for folder in models.values():
        for path in (folder / "configs").glob("*.pbtxt"):  # what some hosts read instead
            _check_host_config(folder, path, configs.values())
    return releases


def _served_versions(model: Path, config: pb.ModelConfig) -> set[int]:
    if config.version_policy.WhichOneof("policy_choice") == "all":
        return {int(folder.name) for folder in model.iterdir() if folder.is_dir()}
    return set(config.version_policy.specific.versions)


@pytest.fixture
def own_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep models that are loaded in this process from making it, and all that it starts, nicer."""
    monkeypatch.setattr(os, "setpriority", lambda *_: None)


@pytest.fixture
def dead_url() -> str:
    """An address where nothing listens."""
    return f"127.0.0.1:{free_port()}"


def _check_host_config(model: Path, path: Path, configs: Iterable[Any]) -> None:
    """Fail unless a server that reads `path` could serve every ensemble."""
    named = model_config.versions_named(path)
    assert named, f"{path} serves no version"
    assert all((model / str(version)).is_dir() for version in named), f"{path}: {named}"
    for config in configs:
        for step in config.ensemble_scheduling.step:
            if step.model_name == model.name:
                assert step.model_version in named, f"{path} lacks {step.model_version}"
