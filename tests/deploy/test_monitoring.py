"""Alerts and the dashboard, with Debian's Prometheus, on a real Triton that is really troubled."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import yaml
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc
from waiting import wait_for

from diffusionad_client import Client
from diffusionad_tools.demo_data.dataset import Item, draw

ROOT = Path(__file__).parents[2]
FILES = ROOT / "tools" / "deploy" / "chart" / "files"
COMPOSE = ROOT / "tools" / "deploy" / "compose"
REMEDY = "apt-get install prometheus"
GPU = {
    "nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes",
    "nv_gpu_power_usage", "nv_gpu_power_limit",
}  # fmt: skip


def rules() -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load((FILES / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return {rule.get("alert") or rule["record"]: rule for rule in group["rules"]}


def expressions_of_dashboard() -> list[str]:
    dashboard = json.loads((FILES / "dashboard.json").read_text(encoding="utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:nv_\w+|diffusionad_verdicts_total)", expression))


@pytest.fixture
def promtool(find_program: Callable[[str, str], str]) -> Callable[..., str]:
    path = find_program("promtool", REMEDY)

    def run(*arguments: str | Path, cwd: Path | None = None) -> str:
        said = subprocess.run(
            [path, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=cwd
        )
        assert said.returncode == 0, said.stdout + said.stderr
        return said.stdout

    return run


def test_promtool_takes_the_rules_and_the_configuration(
    promtool: Callable[..., str], tmp_path: Path
) -> None:
    assert f"{len(rules())} rules found" in promtool("check", "rules", FILES / "alerts.yaml")
    for file in (COMPOSE / "prometheus.yml", FILES / "alerts.yaml"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert "SUCCESS" in promtool("check", "config", tmp_path / "prometheus.yml")


def test_what_cannot_be_made_true_here_is_true_of_made_up_series(
    promtool: Callable[..., str], tmp_path: Path
) -> None:
    labels = 'job="diffusionad",instance="a"'
    decoding = f'{labels},model="image_decoding_256"'
    pending = 'nv_inference_pending_request_count{job="diffusionad",instance="a",model='
    cases = {
        "DiffusionADMemoryLow": {
            f"nv_cpu_memory_used_bytes{{{labels}}}": "95x20",
            f"nv_cpu_memory_total_bytes{{{labels}}}": "100x20",
        },
        "DiffusionADGpuMemoryLow": {
            f"nv_gpu_memory_used_bytes{{{labels}}}": "97x20",
            f"nv_gpu_memory_total_bytes{{{labels}}}": "100x20",
        },
        "DiffusionADQueueFull": {f'{pending}"screw__noise_prediction"}}': "64x20"},
        "DiffusionADQueueLong": {
            f"nv_inference_queue_duration_us{{{decoding}}}": "0+9000000x20",
            f"nv_inference_request_success{{{decoding}}}": "0+3x20",
        },
    }
    unit_test(promtool, tmp_path, {"15m": cases})


def test_requests_are_stuck_also_where_a_model_has_never_answered(
    promtool: Callable[..., str], tmp_path: Path
) -> None:
    def series(model: str) -> str:
        return f'{{job="diffusionad",instance="a",model="{model}"}}'

    waiting, answered = "nv_inference_pending_request_count", "nv_inference_exec_count"
    never = {waiting + series("new"): "3x20"}
    no_more = {waiting + series("old"): "3x20", answered + series("old"): "0+9x4 36x16"}
    busy = {waiting + series("busy"): "3x20", answered + series("busy"): "0+9x20"}
    stuck = "DiffusionADRequestsStuck"
    unit_test(promtool, tmp_path, {"15m": {stuck: never}})
    unit_test(promtool, tmp_path, {"15m": {stuck: no_more}})
    unit_test(promtool, tmp_path, {"15m": {stuck: busy}}, firing=False)


def test_rejects_jump_where_their_share_has_grown_against_the_day_before(
    promtool: Callable[..., str], tmp_path: Path
) -> None:
    step, day, late = 5, 24 * 60 // 5, 6  # minutes; as often in a day; in half an hour
    lines = {  # OK and NG in five minutes: the day before, and now
        "jumps": ((98, 2), (85, 15)),
        "breaks": ((100, 0), (94, 6)),
        "by chance": ((98, 2), (94, 6)),
        "bad as ever": ((70, 30), (40, 60)),
        "few parts": ((98, 2), (1, 1)),
        "new": ((0, 0), (50, 50)),  # nobody knows what is usual
    }
    series = [
        {
            "series": "diffusionad_verdicts_total"
            f'{{job="diffusionad",category="{line}",verdict="{verdict}",process="{process}"}}',
            "values": f"0+{usual}x{day} {usual * (day + 1)}+{now}x{late}",
        }
        for line, (before, after) in lines.items()
        for verdict, usual, now in zip(("OK", "NG"), before, after, strict=True)
        for process in (7, 9)  # on two servers
    ]
    told = {
        "expr": "count by (category) (ALERTS"
        '{alertname="DiffusionADRejectsJump",alertstate="firing"})',
        "eval_time": f"{(day + late) * step}m",
        "exp_samples": [
            {"labels": f'{{category="{line}"}}', "value": 1} for line in ("breaks", "jumps")
        ],
    }
    test = {"interval": f"{step}m", "input_series": series, "promql_expr_test": [told]}
    run_unit_tests(promtool, tmp_path, f"{step}m", [test])


def unit_test(
    promtool: Callable[..., str],
    folder: Path,
    cases: dict[str, dict[str, dict[str, str]]],
    *,
    firing: bool = True,
) -> None:
    """Have promtool say whether alerts fire: time -> alert -> series of a value a minute."""
    promql = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                    "eval_time": at,
                    "exp_samples": [{"labels": "{}", "value": 1}] if firing else [],
                }
            ],
        }
        for at, alerts in cases.items()
        for alert, series in alerts.items()
    ]
    run_unit_tests(promtool, folder, "1m", promql)


def run_unit_tests(
    promtool: Callable[..., str], folder: Path, every: str, tests: list[dict[str, Any]]
) -> None:
    (folder / "alerts.yaml").write_bytes((FILES / "alerts.yaml").read_bytes())
    document = {"rule_files": ["alerts.yaml"], "evaluation_interval": every, "tests": tests}
    (folder / "tests.yaml").write_text(yaml.safe_dump(document))
    promtool("test", "rules", "tests.yaml", cwd=folder)


def test_prometheus_can_answer_what_the_number_of_replicas_follows(
    promtool: Callable[..., str], render: Callable[..., list[Any]], tmp_path: Path
) -> None:
    scaled = next(d for d in render("gpu") if d["kind"] == "ScaledObject")
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    first = 'namespace="line",pod="plant-5d4f8c7b9-x2k4q",model="screw__noise_prediction"'
    document = {
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    # Of five requests a second, each waits for 300 ms.
                    {
                        "series": f"nv_inference_queue_duration_us{{{first}}}",
                        "values": "0+90000000x9",
                    },
                    {"series": f"nv_inference_request_success{{{first}}}", "values": "0+300x9"},
                ],
                "promql_expr_test": [
                    {
                        "expr": query,
                        "eval_time": "9m",
                        "exp_samples": [{"labels": "{}", "value": 300}],
                    }
                ],
            }
        ],
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    promtool("test", "rules", "tests.yaml", cwd=tmp_path)


def test_every_alert_is_on_the_page() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(DiffusionAD\w+)`", page)) == {n for n in rules() if n[0] == "D"}
    assert set(re.findall(r"`(nv_gpu_\w+)`", page)) == GPU


def test_the_dashboard_asks_for_nothing_of_gpus_that_is_not_listed() -> None:
    asked = set().union(*map(metrics_in, expressions_of_dashboard()))
    assert {metric for metric in asked if "gpu" in metric} == GPU


class Prometheus:
    """A real Prometheus that looks every half second, and whose rules' minutes are seconds."""

    def __init__(self, program: str, folder: Path, port: int, target: str) -> None:
        text = (FILES / "alerts.yaml").read_text(encoding="utf-8")
        text = re.sub(r"\[(2|5|15)m\]", "[4s]", text)
        text = text.replace("[1d] offset 15m", "[10s] offset 4s")
        text = re.sub(r"for: \w+", "for: 1s", text)
        (folder / "alerts.yaml").write_text(text)
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 500ms, evaluation_interval: 500ms}\n"
            "rule_files: [alerts.yaml]\n"
            "scrape_configs:\n"
            f"  - {{job_name: diffusionad, static_configs: [{{targets: ['{target}']}}]}}\n"
        )
        self.url = f"http://127.0.0.1:{port}/api/v1"
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [
                *(program, f"--config.file={folder}/prometheus.yml"),
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self.log, stderr=self.log,
        )  # fmt: skip

    def ask(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            return json.load(answer)["data"]

    def firing(self) -> set[tuple[str, str]]:
        try:
            alerts = self.ask("/alerts")["alerts"]
        except OSError:
            return set()
        return {
            (alert["labels"]["alertname"], alert["labels"].get("model", ""))
            for alert in alerts
            if alert["state"] == "firing"
        }

    def query(self, expression: str) -> list[Any]:
        answer = self.ask("/query?query=" + urllib.parse.quote(expression))
        found: list[Any] = answer["result"]
        return found

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


@pytest.fixture(scope="module")
def prometheus(
    triton: Any,
    find_program: Callable[[str, str], str],
    temporary: Path,
    unused_port: Callable[[], int],
) -> Iterator[Prometheus]:
    program = find_program("prometheus", REMEDY)
    folder = temporary / "prometheus"
    folder.mkdir()
    made = Prometheus(program, folder, unused_port(), triton.metrics_url[7:-8])
    try:
        yield made
    finally:
        made.close()


def a_picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    return file.getvalue()


def encoded(content: bytes) -> service_pb2.ModelInferRequest:
    message = service_pb2.ModelInferRequest(model_name="demo_plate__encoded")
    tensor = message.inputs.add(name="IMAGE_BYTES", datatype="BYTES")
    tensor.shape.extend([1, 1])
    message.outputs.add(name="SCORE")
    message.raw_input_contents.append(len(content).to_bytes(4, "little") + content)
    return message


@pytest.mark.server
def test_every_metric_of_the_dashboard_and_the_rules_is_there_and_nothing_fires(
    triton: Any, prometheus: Prometheus
) -> None:
    with Client(triton.grpc_url) as client:
        client.probe()

    def known(expression: str) -> bool:
        return all(prometheus.query(metric) for metric in metrics_in(expression) - GPU)

    wait_for(lambda: prometheus.query("up"), 20)
    for expression in [*expressions_of_dashboard(), *(rule["expr"] for rule in rules().values())]:
        wait_for(lambda e=expression: known(e))  # type: ignore[misc]
        concrete = expression.replace("$__rate_interval", "4s").replace("$instance", ".*")
        prometheus.query(concrete)  # or it raises
    wait_for(lambda: not prometheus.firing())  # nothing was up before the first look


@pytest.mark.server
def test_requests_that_fail_are_told(triton: Any, prometheus: Prometheus) -> None:
    stop = threading.Event()

    def send() -> None:
        with grpc.insecure_channel(triton.grpc_url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while not stop.wait(0.1):
                with suppress(grpc.RpcError):
                    stub.ModelInfer(encoded(b"this is no image"), timeout=30)

    sender = threading.Thread(target=send)
    sender.start()
    try:  # Triton counts such a file for the ensemble, not for the model that refuses it
        fails = ("DiffusionADRequestsFail", "demo_plate__encoded")
        wait_for(lambda: fails in prometheus.firing(), 30)
    finally:
        stop.set()
        sender.join()


@pytest.mark.server
@pytest.mark.long
def test_a_line_whose_share_of_rejects_jumps_is_told(triton: Any, prometheus: Prometheus) -> None:
    """Light that goes out: from then on, every picture is black."""
    good = draw(Item("test", "good", 0), size=256, seed=2)[0]
    black = np.zeros_like(good)
    stop, dark = threading.Event(), threading.Event()

    def send() -> None:
        with Client(triton.grpc_url) as client:
            while not stop.wait(0.02):
                client.inspect(black if dark.is_set() else good)

    jumps = ("DiffusionADRejectsJump", "")
    verdict = 'diffusionad_verdicts_total{job="diffusionad",verdict="%s"}'
    senders = [threading.Thread(target=send) for _ in range(3)]
    for sender in senders:
        sender.start()
    try:
        wait_for(lambda: prometheus.query(f"sum(increase({verdict % 'OK'}[10s])) > 60"), 60)
        assert jumps not in prometheus.firing()
        dark.set()
        wait_for(lambda: jumps in prometheus.firing(), 60)
    finally:
        stop.set()
        for sender in senders:
            sender.join()


@pytest.mark.server
@pytest.mark.long
def test_a_process_that_stands_still_is_told(triton: Any, prometheus: Prometheus) -> None:
    with Client(triton.grpc_url) as client:
        client.probe()
    wait_for(lambda: prometheus.query("up == 1"), 20)
    stubs = [pid for pid in descendants(triton.process.pid) if decodes(pid)]
    assert stubs
    for pid in stubs:
        os.kill(pid, signal.SIGSTOP)
    with grpc.insecure_channel(triton.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        # The process holds some of them, and only those that wait for it are counted.
        calls = [stub.ModelInfer.future(encoded(a_picture()), timeout=60) for _ in range(12)]
        stuck = ("DiffusionADRequestsStuck", "image_decoding_256")
        wait_for(lambda: stuck in prometheus.firing(), 30)
        for call in calls:
            call.cancel()


@pytest.mark.server
def test_a_server_that_is_gone_is_told(triton: Any, prometheus: Prometheus) -> None:
    wait_for(lambda: prometheus.query("up == 1"))
    os.killpg(triton.process.pid, signal.SIGKILL)
    gone = {("DiffusionADServerDown", ""), ("DiffusionADNoServer", "")}
    wait_for(lambda: gone <= prometheus.firing(), 30)


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task").glob("*/children")
    direct = [int(child) for file in children for child in file.read_text().split()]
    return direct + [below for child in direct for below in descendants(child)]


def decodes(pid: int) -> bool:
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"python_backend_stub" in command.split(b"\0")[0] and b"image_decoding" in command
