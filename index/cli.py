"""``geomatch index build | info | check | publish``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from geomatch import defaults
from geomatch.console import BACKENDS, PLAIN_HELP, Quiet, Verbose, box, friendly, progress, set_verbosity
from geomatch.errors import IndexFormatError, InputError, UsageError
from geomatch.memory import keep_freed

if TYPE_CHECKING:
    from geomatch.tile_index import TileIndex

app = typer.Typer(
    help="Build and look after indexes of orthomosaics.", no_args_is_help=True, rich_markup_mode=PLAIN_HELP
)

IndexArgument = Annotated[Path, typer.Argument(help="Index directory.", show_default=False)]


@app.command()
@friendly
def build(
    orthomosaic: Annotated[
        list[Path],
        typer.Argument(help="Georeferenced GeoTIFF, or several that together are one map.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory to appear, like city.gmi.")],
    config: Annotated[Path | None, typer.Option(help="YAML of options, see configs/index; flags win over it.")] = None,
    bbox: Annotated[str | None, typer.Option(help="left,bottom,right,top of the part to index.")] = None,
    bbox_crs: Annotated[str | None, typer.Option(help="CRS of --bbox, like EPSG:4326; default the map's.")] = None,
    tile: Annotated[int | None, typer.Option(help="Side of a tile, pixels.", show_default="200")] = None,
    stride: Annotated[int | None, typer.Option(help="From one tile to the next, pixels.", show_default="16")] = None,
    components: Annotated[
        int | None,
        typer.Option(help="Of the PCA that vectors go through, 0 for no PCA.", show_default="as many as do best"),
    ] = None,
    vectors: Annotated[
        str | None, typer.Option(help="auto, or a FAISS factory string such as Flat.", show_default="auto")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="structural, the name of weights (geomatch weights), or a .safetensors file.",
            show_default=defaults.ENCODER,
        ),
    ] = None,
    backend: Annotated[str | None, typer.Option(help=BACKENDS, show_default=defaults.BACKEND)] = None,
    min_valid: Annotated[
        float | None, typer.Option(help="Leave out tiles with a smaller share of data.", show_default="0.5")
    ] = None,
    working_gsd: Annotated[
        float | None,
        typer.Option(
            help="Metres per pixel at which to index the map, and to compare strips with it.", show_default="the map's"
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS|local:N",
            help="Build by the workers of a Dask scheduler, or by N processes here; a build that was ended goes on.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an index that is there.")] = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Build the index of an orthomosaic.

    Of several rasters the first one's CRS and pixels count: those on its grid are pasted, others resampled onto it.
    Where several cover a pixel, the first that has data there counts.
    """
    keep_freed()
    from .build import build_index
    from .plan import read_options

    set_verbosity(verbose + 1, quiet)  # what a query tells when asked, a build that takes minutes tells at once
    options = read_options(
        config,
        tile_px=tile,
        stride_px=stride,
        encoder=encoder,
        backend=backend,
        vectors=vectors,
        components=components,
        bbox=box(bbox),
        bbox_crs=bbox_crs,
        min_valid=min_valid,
        working_gsd_m=working_gsd,
    )
    with progress(quiet) as step:
        made = build_index(orthomosaic, output, options, overwrite=overwrite, scheduler=scheduler, progress=step)
    if not quiet:
        size = sum(file.stat().st_size for file in output.iterdir())
        grid = made.grid
        typer.echo(f"{output}: {len(made)} tiles of {grid.width} × {grid.height} px, {size / 1e6:.1f} MB")


@app.command()
@friendly
def info(
    index: IndexArgument, as_json: Annotated[bool, typer.Option("--json", help="Print the manifest.")] = False
) -> None:
    """Tell what an index holds and what it was made from."""
    from geomatch.geo import footprint, ground_resolution_m, to_crs84
    from geomatch.location import crs_name
    from geomatch.tile_index import TileIndex

    opened = TileIndex.open(_folder(index))
    manifest, grid = opened.manifest, opened.grid
    if as_json:
        typer.echo(manifest.to_json())
        return
    west, south, east, north = to_crs84(footprint(grid), grid.crs).bounds
    left, bottom, right, top = footprint(grid).bounds
    size = sum(entry.size_bytes for entry in manifest.files.values())
    facts = {
        "map": _map_state(opened),
        "part": f"{grid.width} × {grid.height} px of {ground_resolution_m(grid):.4g} m on the ground",
        "pixels": "the map's" if manifest.scale == 1 else f"{manifest.scale:.4g} of the map's to a side",
        "CRS": f"{grid.crs.name} ({crs_name(grid.crs)[:20]})",
        "extent": f"{left:.10g},{bottom:.10g},{right:.10g},{top:.10g}",
        "lon, lat": f"{west:.6f},{south:.6f} to {east:.6f},{north:.6f}",
        "tiles": f"{len(opened)} of {manifest.tiles.size_px} px every {manifest.tiles.stride_px} px",
        "vectors": manifest.tiles.vectors,
        "encoder": f"{manifest.encoder.name}, {manifest.encoder.channels} channels at 1/{manifest.encoder.cell_px}"
        + (f", by {manifest.encoder.backend}" if manifest.encoder.backend else ""),
        "size": f"{size / 1e6:.1f} MB",
        "built by": f"geomatch {manifest.geomatch_version}",
    }
    for name, fact in facts.items():
        typer.echo(f"{name + ':':<12}{fact}")


def _map_state(opened: TileIndex) -> str:
    """Where the orthomosaic is, or what is wrong with it."""
    found: list[str] = []
    faults: list[str] = []
    for source in opened.manifest.sources:
        try:
            found.append(str(opened.find_source(source)))
        except InputError as error:
            faults.append(f"{error.where}: {error.what}")
    count = len(opened.manifest.sources)
    if count == 1:
        return (found or faults)[0]
    if not faults:
        return f"{count} rasters, the first {found[0]}"
    return "; ".join([f"{count} rasters, {len(faults)} of them missing or changed", *faults])


@app.command()
@friendly
def check(
    index: IndexArgument, as_json: Annotated[bool, typer.Option("--json", help="Print the faults as JSON.")] = False
) -> None:
    """Verify every file of an index against its hash.

    Exits with 4 when something is wrong.
    """
    from geomatch.tile_index import TileIndex

    folder, cannot = _folder(index), None
    try:
        faults = TileIndex.open(folder).check()
    except IndexFormatError as error:
        faults, cannot = [error.what], error
    if as_json:
        typer.echo(json.dumps({"index": str(index), "sound": not faults, "faults": faults}))
    elif not faults:
        typer.echo(f"{index}: sound")
    if faults:
        hint = "build it again with geomatch index build --overwrite"
        raise cannot or IndexFormatError("; ".join(faults), where=index, hint=hint)


def _folder(index: Path) -> Path:
    """The directory that was named, and no collection."""
    from geomatch.stores import SCHEME

    if index.parts[:1] == (SCHEME.rstrip("/"),):
        hint = "name the folder of the index that was published there"
        raise UsageError("this command looks at an index's own files", where=index, hint=hint)
    return index


@app.command()
@friendly
def publish(
    index: IndexArgument,
    to: Annotated[
        str,
        typer.Option(
            metavar="milvus://HOST:PORT/NAME",
            help="Collection to appear; milvus://FILE.db/NAME in a file of Milvus Lite.",
            show_default=False,
        ),
    ],
    index_type: Annotated[
        Literal["FLAT", "AUTOINDEX"] | None,
        typer.Option(
            help="FLAT compares all tiles and answers as the folder does; AUTOINDEX is faster, and misses some.",
            show_default="AUTOINDEX; FLAT in a file",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a collection that is there.")] = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Copy the tiles' vectors to a Milvus collection.

    There they are searched: geomatch locate --index milvus://... The rest of the index is read from its folder still.
    A server's token is taken from GEOMATCH_MILVUS_TOKEN.
    """
    from .publish import publish_index

    set_verbosity(verbose, quiet)
    with progress(quiet) as step:
        made = publish_index(index, to, overwrite=overwrite, index_type=index_type, progress=step)
    if not quiet:
        typer.echo(str(made))
