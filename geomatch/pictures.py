"""Where ``geomatch locate --overlay --warp --gcps`` write, found out before the work, and what they write there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geomatch.console import log
from geomatch.errors import UsageError
from geomatch.files import check_target
from geomatch.gcps import WRITERS, write_gcps
from geomatch.locator import Locator, Trace
from geomatch.matching.fit import NoFit
from geomatch.overlay import Canvas, checkerboard, warp_strip
from geomatch.registration import register_located
from geomatch.strip_files import StripOptions


class Pictures:
    """Draws answers on the map.

    Args:
        locator: that answers.
        options: how the strips' numbers are read.
        strips: the files that will be located.
        overlay: PNG of a checkerboard, or a folder for NAME.png of each strip; None draws none.
        warp: GeoTIFF of the strip on the map's grid, or a folder for NAME.tif; None writes none.
        gcps: ground control points as ``geomatch.gcps`` writes them, or a folder for NAME.points; None writes none.

    Raises:
        UsageError: a path of another kind of file, several strips but one file, strips of one name, or a target that
            is a strip or the map itself.
        OutputError: a place that cannot be written, see ``check_target``.
        InputError: checkerboards or control points are asked for and the map is not there.
    """

    def __init__(
        self,
        locator: Locator,
        options: StripOptions,
        strips: Sequence[Path],
        *,
        overlay: Path | None = None,
        warp: Path | None = None,
        gcps: Path | None = None,
    ) -> None:
        if (overlay is not None or gcps is not None) and locator.pixels is None:
            locator.index.open_map().close()  # raises, saying why there are no pixels
        self._canvas, self._options = Canvas.of(locator), options
        inputs = [*strips, *([] if locator.pixels is None else locator.pixels.raster.paths)]
        self._overlays = _targets(strips, overlay, (".png",), "--overlay", inputs)
        self._warps = _targets(strips, warp, (".tif", ".tiff"), "--warp", inputs)
        self._gcps = _targets(strips, gcps, tuple(WRITERS), "--gcps", inputs)

    def draw(self, strip: Path, trace: Trace) -> None:
        """Write what was asked for; a strip without a place has no picture.

        Raises:
            OutputError: a picture cannot be written.
        """
        location = trace.location
        overlay, warp, gcps = self._overlays.get(strip), self._warps.get(strip), self._gcps.get(strip)
        if location.transform is None:
            if overlay or warp or gcps:
                log.warning("%s: %s, so there is no picture of it", strip, location.status)
            return
        for target in filter(None, (overlay, warp, gcps)):
            if not target.parent.exists():
                target.parent.mkdir(exist_ok=True)
        if overlay is not None:
            checkerboard(strip, location, self._canvas, overlay, options=self._options)
        if warp is not None:
            warp_strip(strip, location, self._canvas, warp)
        if gcps is not None:
            self._write_gcps(strip, trace, gcps)

    def _write_gcps(self, strip: Path, trace: Trace, target: Path) -> None:
        assert self._canvas.pixels is not None, "checked at first"
        if points := trace.location.evidence.tie_points:
            write_gcps(points, self._canvas.grid.crs, strip, target)
            log.warning("%s: sways along its track; %d control points follow it, warp with -tps", strip, len(points))
            return
        registration = register_located(trace, self._canvas.grid, self._canvas.pixels)
        if isinstance(registration.fit, NoFit):
            log.warning("%s: no ground control points, %s", strip, registration.fit.reason)
            return
        write_gcps(registration.gcps, registration.grid.crs, strip, target)
        ellipse = registration.ellipse
        assert ellipse is not None, "of a fit"
        log.info(
            "%s: %d tie points agree on a %s; its middle within %.3g × %.3g m, the longer towards %.0f°",
            strip,
            int(registration.fit.inliers.sum()),
            registration.fit.model,
            ellipse.semi_major_m,
            ellipse.semi_minor_m,
            ellipse.azimuth_deg,
        )


def _targets(
    strips: Sequence[Path], path: Path | None, suffixes: tuple[str, ...], option: str, inputs: Sequence[Path]
) -> dict[Path, Path]:
    """The file to write for each strip."""
    if path is None:
        return {}
    several = len(set(strips)) > 1
    if several and path.exists() and not path.is_dir():
        raise UsageError("is a file", where=f"{option} {path}", hint="name a folder when there are several strips")
    in_folder = several or path.is_dir()
    if not in_folder and path.suffix.lower() not in suffixes:
        hint = f"end its name in {' or '.join(suffixes)}, or name a folder"
        raise UsageError(f"unknown kind of file {path.suffix!r}", where=f"{option} {path}", hint=hint)
    targets = {strip: path / f"{strip.stem}{suffixes[0]}" if in_folder else path for strip in strips}
    check_target(path, directory=in_folder)
    _check_apart(targets, option, inputs)
    return targets


def _check_apart(targets: dict[Path, Path], option: str, inputs: Sequence[Path]) -> None:
    """Raise unless every strip has a target of its own, and none is a file that is read."""
    read = {file.resolve() for file in inputs}
    writers: dict[Path, Path] = {}
    for strip, target in targets.items():
        if target.resolve() in read:
            raise UsageError("would overwrite a file that is read", where=f"{option} {target}", hint="name another")
        other = writers.setdefault(target, strip)
        if other.resolve() != strip.resolve():
            hint = "rename one, or locate them one at a time"
            raise UsageError(f"is where both {other} and {strip} would go", where=f"{option} {target}", hint=hint)
