"""A report in one HTML file: tables and pictures, nothing loaded from anywhere, no script."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from geomatch.errors import InputError
from geomatch.extras import needs_extra
from geomatch.outputs import output_file

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEMPLATE = Path(__file__).with_name("report.html.j2")

Cell = str | int | float | None


@dataclass(frozen=True)
class ReportTable:
    """A table.

    Attributes:
        title: heading above it.
        columns: heads of the columns, with units.
        rows: as many cells each; floats are shown with four significant digits, None as a dash.
        caption: what it says and how it was measured, below it; "" for none.

    Raises:
        ValueError: a row has another number of cells.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r}: a row of {len(row)} cells under {len(self.columns)} columns")

    @property
    def alignments(self) -> tuple[str, ...]:
        """Per column "number", where its cells are numbers, or "text"; None is either."""
        cells = ([row[i] for row in self.rows if row[i] is not None] for i in range(len(self.columns)))
        return tuple("number" if c and all(isinstance(v, int | float) for v in c) else "text" for c in cells)


@dataclass(frozen=True)
class ReportPicture:
    """A picture.

    Attributes:
        title: heading above it.
        caption: what it shows, below it.
        png: its file, or the content of one.
        alt: what it shows, for those who cannot see it.
        wide: whether it has the page's width; if not, it stands beside others where there is room.
    """

    title: str
    caption: str
    png: Path | bytes
    alt: str
    wide: bool = False

    @property
    def data_uri(self) -> str:
        """The picture within its own address.

        Raises:
            InputError: it cannot be read, or is no PNG.
        """
        where = self.png if isinstance(self.png, Path) else self.title
        try:
            content = self.png.read_bytes() if isinstance(self.png, Path) else self.png
        except OSError as error:
            raise InputError(f"the picture cannot be read ({error.strerror})", where=where) from error
        if not content.startswith(PNG_SIGNATURE):
            raise InputError("the picture is no PNG", where=where)
        return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


Section = ReportTable | ReportPicture


def write_report(path: str | os.PathLike[str], title: str, intro: str, sections: Sequence[Section]) -> None:
    """Write a report, whole or not at all.

    Args:
        path: the HTML file; what is there is replaced.
        title: of the page.
        intro: what was done, a paragraph.
        sections: in the order in which they are shown.

    Raises:
        UsageError: jinja2 is not installed.
        InputError: a picture cannot be read.
        OutputError: the file cannot be written.
    """
    with needs_extra("report", "writing a report"):
        from jinja2 import Environment, StrictUndefined
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = _cell
    environment.tests["table"] = lambda section: isinstance(section, ReportTable)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(title=title, intro=intro, sections=sections, version=version("geomatch"))
    with output_file(Path(path)) as file:
        file.write_text(page, encoding="utf-8", errors="replace")


def _cell(value: Cell) -> str:
    """The text of a table's cell."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
