"""`diffusionad demo-data`: write the procedural demo product as a data set."""

from __future__ import annotations

from pathlib import Path

import click

from diffusionad_tools.demo_data.product import DEFAULT, Product


@click.command("demo-data")
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--train",
    default=200,
    show_default=True,
    type=click.IntRange(min=0),
    help="Good parts to train on.",
)
@click.option(
    "--test-good",
    default=40,
    show_default=True,
    type=click.IntRange(min=0),
    help="Good parts to test on.",
)
@click.option(
    "--defective",
    default=15,
    show_default=True,
    type=click.IntRange(min=0),
    help="Defective parts to test on, of each class.",
)
@click.option(
    "--size",
    default=320,
    show_default=True,
    type=click.IntRange(64, 2048),
    help="Side of the square pictures, in pixels.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="The same seed gives the same pictures; a smaller set is part of a larger one.",
)
@click.option(
    "--product",
    type=click.Choice([product.value for product in Product]),
    default=DEFAULT.value,
    show_default=True,
    help="The plate alone, or with a clip pressed in, which may be missing or turned too.",
)
def demo_data(
    output: Path,
    train: int,
    test_good: int,
    defective: int,
    size: int,
    seed: int,
    product: str,
) -> None:
    """Write pictures of a made-up product to the new folder OUTPUT.

    The product is a brushed steel plate on a belt with a black clip pressed
    into it: good parts, and parts with a scratch, a dent, a stain, a missing
    hole, or a clip that is missing or turned, each with the mask of its defect.
    With --product plate there are no clips. The layout is that of MVTec AD:

    \b
      OUTPUT/train/good/000.png
      OUTPUT/test/good/000.png
      OUTPUT/test/scratch/000.png
      OUTPUT/ground_truth/scratch/000_mask.png
    """
    from rich.console import Console
    from rich.progress import Progress

    from diffusionad_tools.demo_data.dataset import DemoSet, write

    demo = DemoSet(
        train=train,
        test_good=test_good,
        defective=defective,
        size=size,
        seed=seed,
        product=Product(product),
    )
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Making parts", total=len(demo))
        write(demo, output, advance=lambda: progress.advance(task))
    click.echo(
        f"{output}: {train} good parts to train on; to test on, {test_good} good "
        f"and {len(demo) - train - test_good} defective"
    )
