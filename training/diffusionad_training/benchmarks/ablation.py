"""What each part of the method is worth: the same training without it, on each data set.

    python -m diffusionad_training.benchmarks.ablation DATA [DATA ...] --output build/ablation \\
        --textures TEXTURES --steps 2500

Ways are those of the paper's Table 3 with our features beside them. All see the same
data with the same seed, for the same time or the same number of steps; with --equal-cost
each one's noise network is as wide as brings its cost to that of the dearest, so that
what a part costs when served is spent otherwise. Every run and every figure is kept in
the output, and a command that was stopped goes on where it was.
"""

from __future__ import annotations

import bisect
import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from diffusionad_training.config import Config
from diffusionad_training.config.presets import PRESETS
from diffusionad_training.config.settings import changed
from diffusionad_training.footprint.cost import inference_flop
from diffusionad_training.method.diffusion import alpha_bar_table

FIGURES = ("image_auroc", "pixel_auroc", "pro", "pixel_average_precision")
WIDEST = 4  # times the preset's width that an equal cost is looked for in

Settings = dict[str, Any]


@dataclass(frozen=True)
class AblatedWay:
    """One way to find defects: settings on top of the preset's."""

    name: str
    settings: Settings


def ways(config: Config) -> list[AblatedWay]:
    """Give all ways that are compared; a preset without guidance has the paper's."""
    guidance = config.detector.guidance
    schedule = config.detector.schedule
    table = alpha_bar_table(schedule.steps, schedule.beta_first, schedule.beta_last)
    noise = 1 - float(table[guidance.small_step])  # of the small step: Eq. 8 pulls by w times this
    weight = guidance.weight or 1.0
    without: Settings = {"features.backbone": "none"}
    with_features: Settings = {"features.backbone": "efficientnet-lite0"}
    return [
        AblatedWay("small step alone", without | {"guidance.weight": 0.0}),
        # All of the way to n: Eqs. 7 and 8 then are the large step's Eq. 6.
        AblatedWay("large step alone", without | {"guidance.weight": 1 / noise}),
        AblatedWay("guided", without | {"guidance.weight": weight}),
        AblatedWay("guided, features", with_features | {"guidance.weight": weight}),
        AblatedWay("features, not guided", with_features | {"guidance.weight": 0.0}),
        AblatedWay("autoencoder", without | {"restoration": "autoencoder"}),
    ]


def of_equal_cost(chosen: list[AblatedWay], config: Config) -> list[AblatedWay]:
    """Widen the noise network of each way until it costs as much as the dearest of them."""
    network = config.detector.noise_network
    dearest = max(inference_flop(changed(config, way.settings)) for way in chosen)
    unit = math.lcm(network.groups, network.heads)
    widths = range(network.base_channels, WIDEST * network.base_channels + 1, unit)

    def widened(way: AblatedWay) -> AblatedWay:
        def settings(width: int) -> Settings:
            return way.settings | {"noise_network.base_channels": width}

        def flop(width: int) -> int:
            return inference_flop(changed(config, settings(width)))

        place = bisect.bisect_left(widths, dearest, key=flop)
        nearest = min(widths[max(place - 1, 0) : place + 1], key=lambda w: abs(flop(w) - dearest))
        return AblatedWay(way.name, settings(nearest))

    return [widened(way) for way in chosen]


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path), help="For all runs.")
@click.option("--preset", default="edge", show_default=True, type=click.Choice(list(PRESETS)))
@click.option("--textures", type=click.Path(path_type=Path))
@click.option("--time-budget", help="Of each training, such as 45m.")
@click.option("--steps", type=int, help="Of each training.")
@click.option("--seed", default=0, show_default=True)
@click.option("--equal-cost", is_flag=True, help="Let each way cost as much as the dearest.")
@click.option("--only", multiple=True, help="Name of a way; may be repeated.  [default: all]")
@click.option("--set", "settings", multiple=True, metavar="SETTING=VALUE", help="Of every way.")
def ablation(
    data: tuple[Path, ...],
    output: Path,
    preset: str,
    textures: Path | None,
    time_budget: str | None,
    steps: int | None,
    seed: int,
    equal_cost: bool,
    only: tuple[str, ...],
    settings: tuple[str, ...],
) -> None:
    """Train and evaluate every way on every data set, and print the figures as a table."""
    chosen = ways(PRESETS[preset])
    if equal_cost:
        chosen = of_equal_cost(chosen, PRESETS[preset])
    if unknown := set(only) - {way.name for way in chosen}:
        raise click.UsageError(f"no way {unknown}; there are {[way.name for way in chosen]}")
    chosen = [way for way in chosen if not only or way.name in only]
    limits = ["--time-budget", time_budget] if time_budget else []
    limits += ["--steps", str(steps)] if steps else []
    common = [f"--preset={preset}", f"--seed={seed}", *limits]
    common += [f"--textures={textures}"] if textures else []
    common += [f"--set={setting}" for setting in settings]
    click.echo("| data | way | steps | GFLOP | image AUROC | pixel AUROC | PRO | pixel AP |")
    click.echo("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for folder in data:
        for way in chosen:
            run = output / folder.name / way.name.replace(",", "").replace(" ", "-")
            _train(
                folder,
                run,
                [*common, *(f"--set={k}={json.dumps(v)}" for k, v in way.settings.items())],
            )
            click.echo(f"| {folder.name} | {way.name} | {_row(run, _evaluated(folder, run))} |")


def _train(data: Path, run: Path, options: list[str]) -> None:
    """Train, or go on with what was begun; what has ended stays."""
    done = run.with_suffix(".done")
    if done.exists():
        return
    resumed = ["--resume"] if (run / "resume.safetensors").exists() else ["--overwrite"]
    _run(["train", str(data), f"--output={run}", *options, *resumed], run.with_suffix(".log"))
    done.touch()


def _evaluated(data: Path, run: Path) -> dict[str, Any]:
    figures = run.with_suffix(".json")
    if not figures.exists():
        log = run.with_suffix(".log")
        _run(["evaluate", str(data), f"--run={run}", f"--output={figures}"], log)
    document: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8"))
    return document


def _row(run: Path, figures: dict[str, Any]) -> str:
    config = Config.from_json((run / "config.json").read_text(encoding="utf-8"))
    steps = json.loads((run / "run.json").read_text(encoding="utf-8"))["steps"]
    shown = [f"{100 * figures[name]:.1f}" if figures[name] is not None else "–" for name in FIGURES]
    return " | ".join([str(steps), f"{inference_flop(config) / 1e9:.2f}", *shown])


def _run(arguments: list[str], log: Path) -> None:
    """Run a command of ours, and keep what it says."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        command = [sys.executable, "-m", "diffusionad_client", *arguments]
        ended = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if ended.returncode:
        raise click.ClickException(f"{arguments[0]} ended with {ended.returncode}; see {log}")


if __name__ == "__main__":
    ablation()
