"""What an image of a map offers to those who read it, be it one file or many."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geomatch.geo import Grid
from geomatch.patches import Patch


class Closing(ABC):
    """A context manager that is closed where its block ends."""

    @abstractmethod
    def close(self) -> None:
        """Close what is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Imagery(Protocol):
    """Pixels on one grid, read by windows; a context manager. One object serves one thread."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def paths(self) -> tuple[Path, ...]:
        """Absolute paths of its files, in their order."""
        ...

    @property
    def grid(self) -> Grid | None:
        """Where its pixels lie."""
        ...

    def read(self, col0: int, row0: int, width: int, height: int, *, bands: Sequence[int] | None = None) -> Patch:
        """A window, zero and invalid where there is nothing; arguments and errors as of ``Raster.read``."""
        ...

    def holders(self, corners_px: ArrayLike, size_px: float) -> NDArray[np.int32]:
        """Numbers of the files that hold the middles of squares, or else the first that touches each: [N].

        Args:
            corners_px: [N x 2] first column and row of each.
            size_px: their side.
        """
        ...

    def close(self) -> None:
        """Close its files."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Orthomosaic(Imagery, Protocol):
    """A map at its own resolution, as it is indexed."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Numpy type of what is read."""
        ...

    @property
    def data_bands(self) -> tuple[int, ...]:
        """1-based numbers of the bands that hold data, so without alpha."""
        ...

    def sample(self, size_px: int, *, bands: Sequence[int], least: int, most_px: int) -> NDArray[Any]:
        """Values of valid pixels spread over all of it: [B x N], N of 0 where no pixel is valid.

        Args:
            size_px: so many along the longer side, where there are as many.
            bands: 1-based.
            least: where fewer are found, more is looked at.
            most_px: to decode, as long as ``least`` are found.
        """
        ...

    def at_scale(self, scale: float) -> Imagery:
        """The same on pixels of another size; ``scale`` and errors as of ``Raster.at_scale``."""
        ...
