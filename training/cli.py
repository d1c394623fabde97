"""``geomatch train``: the encoder, its fine-tuning and reports, and local features."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from geomatch.console import PLAIN_HELP, Quiet, Step, Verbose, friendly, progress, set_verbosity
from geomatch.extras import needs_extra
from geomatch.memory import keep_freed

app = typer.Typer(
    help="Train encoders and local features, on a city of your own too.",
    no_args_is_help=True,
    rich_markup_mode=PLAIN_HELP,
)

Overrides = Annotated[list[str] | None, typer.Argument(help="Dotted keys, like trainer.max_epochs=1.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; one that is there is resumed.")]


Jobs = Callable[[], tuple[Callable[[Path, Sequence[str]], Any], Callable[[Any, Path, Step], Path]]]


def _encoder() -> Any:
    from .config import load_config
    from .run import train_encoder

    return load_config, train_encoder


def _descriptor() -> Any:
    from .local.descriptor import load_descriptor_config, train_descriptor

    return load_descriptor_config, train_descriptor


def _detector() -> Any:
    from .local.detector import load_detector_config, train_detector

    return load_detector_config, train_detector


def _detect_describe() -> Any:
    from .local.detect_describe import load_detect_describe_config, train_detect_describe

    return load_detect_describe_config, train_detect_describe


def _vgg() -> Any:
    from .local.vgg import load_vgg_config, train_vgg

    return load_vgg_config, train_vgg


def _pixels() -> Any:
    from .local.pixels import load_pixel_config, train_pixels

    return load_pixel_config, train_pixels


def _reranker() -> Any:
    from .reranker.task import load_reranker_config, train_reranker

    return load_reranker_config, train_reranker


def _add(name: str, job: Jobs, what: str) -> None:
    """A command that trains what a configuration says; ``job`` imports what reads and what runs it."""

    @friendly
    def run(
        config: Annotated[Path, typer.Option(help="YAML of the run, such as there are in configs/.")],
        output: Output,
        overrides: Overrides = None,
        verbose: Verbose = 0,
        quiet: Quiet = False,
    ) -> None:
        keep_freed()
        with needs_extra("train", "training"):
            load, train = job()
        set_verbosity(verbose, quiet)
        loaded = load(config, overrides or [])
        with progress(quiet) as step:
            weights = train(loaded, output, step)
        if not quiet:
            typer.echo(str(weights))

    told = f"Train {what}.\n\nA configuration says how. Repeat the command to resume a run that was killed."
    app.command(name, help=told)(run)


_add("encoder", _encoder, "an encoder")
_add("descriptor", _descriptor, "a descriptor of patches")
_add("detector", _detector, "a keypoint detector")
_add("detect-describe", _detect_describe, "D2-Net or R2D2 with S2-Net's self-supervision")
_add("vgg", _vgg, "a VGG that tells patches apart")
_add("pixels", _pixels, "features that compare the pixels of strip and map")
_add("reranker", _reranker, "a graph network that re-ranks candidates")


@app.command()
@friendly
def finetune(
    optical: Annotated[Path, typer.Argument(help="Orthomosaic (GeoTIFF).", show_default=False)],
    sar: Annotated[Path, typer.Argument(help="SAR scene on the same grid (GeoTIFF).", show_default=False)],
    output: Output,
    start: Annotated[
        str | None, typer.Option("--from", help="Weights to begin with; default the shipped ones.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="How long.")] = 10.0,
    holdout: Annotated[float, typer.Option(help="Share of the scene kept for validation, at its right.")] = 0.25,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Train the shipped encoder on, on two scenes of one's own."""
    keep_freed()
    with needs_extra("train", "training"):
        from .finetune import finetune_encoder

    set_verbosity(verbose, quiet)
    with progress(quiet) as step:
        weights = finetune_encoder(optical, sar, output, start=start, minutes=minutes, holdout=holdout, progress=step)
    if not quiet:
        typer.echo(f"{weights}\ngeomatch index build {optical} -o city.gmi --encoder {weights}")


@app.command()
@friendly
def sheet(
    config: Annotated[Path, typer.Option(help="YAML of a run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Picture to write (.png).")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted keys, like data.batch=8.")] = None,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Draw what a batch looks like.

    Optical crops, and on each the SAR image where it belongs.
    """
    with needs_extra("train", "training"):
        from .config import load_config
        from .sheet import draw_sheet

    set_verbosity(verbose, quiet)
    draw_sheet(load_config(config, overrides or []), output)
    if not quiet:
        typer.echo(str(output))


@app.command()
@friendly
def card(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Markdown to write.")],
    figures: Annotated[list[Path] | None, typer.Option(help="JSON of benchmarks/encoders.py; may be repeated.")] = None,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Write the model card of a run.

    Data, split, training, figures, limits.
    """
    from geomatch.weights import SUFFIX, Weights

    with needs_extra("train", "training"):
        from .card import write_card
        from .config import load_config
        from .jobs import CONFIG

    set_verbosity(verbose, quiet)
    weights = Weights.find(str(run / f"encoder{SUFFIX}"))
    write_card(load_config(run / CONFIG), weights, figures or [], output)
    if not quiet:
        typer.echo(str(output))


@app.command()
@friendly
def discrepancy(
    config: Annotated[Path, typer.Option(help="YAML of a run; windows are of its validation scene.")],
    weights: Annotated[list[str], typer.Option(help="Name, .safetensors file, or untrained; may be repeated.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for embeddings.png.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted keys, like net.blocks=3.")] = None,
    pairs: Annotated[int, typer.Option(help="Windows of each modality.")] = 300,
    seed: Annotated[int, typer.Option(help="Of the windows and of all that is random.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Measure how far apart the two modalities' embeddings lie.

    For one or more weights; draws them too.
    """
    with needs_extra("train", "training"):
        from .config import load_config
        from .discrepancy import measure_discrepancy, table

    set_verbosity(verbose, quiet)
    loaded = load_config(config, overrides or [])
    with progress(quiet) as step:
        found = measure_discrepancy(loaded, weights, output, step, pairs=pairs, seed=seed)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=1))
    elif not quiet:
        typer.echo(table(found))
