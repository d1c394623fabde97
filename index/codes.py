"""Coded vectors: made some at a time by whoever has them, and put together in FAISS files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from geomatch.index_files import coded
from geomatch.manifest import part_names

if TYPE_CHECKING:
    import faiss

PART_TILES = 100_000  # whose codes are in memory, 58 MB of the shipped kinds at most, before they become a file


class Coder:
    """Codes vectors as a fitted index does; in full where its codes cannot be put behind others.

    Args:
        index: fitted and empty; it is not kept, so that it can be filled meanwhile.
    """

    def __init__(self, index: faiss.Index) -> None:
        import faiss

        whole = copied(index)  # which owns what it is looked for in
        empty = coded(whole)
        self._empty = faiss.clone_index(empty) if _merges(empty) else faiss.IndexFlatIP(empty.d)
        for layer in layers(self._empty):
            if isinstance(layer, faiss.IndexPQFastScan):
                cast(Any, layer).pq.sync_transposed_centroids()  # the codes are the same, and sooner made

    def code(self, searched: NDArray[np.float32]) -> faiss.Index:
        """Vectors [N x D] after the index's transforms, as ``geomatch.gallery.searched`` gives them."""
        import faiss

        made = faiss.clone_index(self._empty)
        if len(searched):  # FAISS's fast-scan codes of nothing end the process
            made.add(np.ascontiguousarray(searched))
        return made


class VectorFile:
    """A fitted index that is filled with codes and written.

    Args:
        index: fitted and empty; it is filled.
    """

    def __init__(self, index: faiss.Index) -> None:
        self._index, self._coded = index, coded(index)
        self._merges = _merges(self._coded)

    def __len__(self) -> int:
        """Number of vectors."""
        return int(self._coded.ntotal)

    def add(self, codes: faiss.Index) -> None:
        """Append what a coder of this index made, which is not to be used any more."""
        if self._merges:
            _merge(self._coded, codes)
        elif codes.ntotal:
            self._coded.add(codes.reconstruct_n(0, codes.ntotal))

    def write(self, file: Path, *, first: bool) -> None:
        """Write what there is; the transforms before the search are in an index's first file alone.

        Raises:
            OSError: as ``write_faiss``.
        """
        for layer in layers(self._coded):
            _clear_padding(layer)
        self._index.ntotal = self._coded.ntotal
        write_faiss(self._index if first else self._coded, file)


def has_room(held: int, more: int) -> bool:
    """Whether a file that holds so many vectors takes some more; an empty one takes any, and all take none."""
    return not (held and more) or held + more <= PART_TILES


class VectorFiles:
    """Writes coded vectors as they come, a file for every PART_TILES, so that memory does not grow with the map.

    Args:
        folder: of the index.
        index: fitted and empty; it is not kept.
    """

    def __init__(self, folder: Path, index: faiss.Index) -> None:
        self._folder, self._empty = folder, copied(index)
        self._file, self._parts = VectorFile(copied(index)), 0

    def add(self, codes: faiss.Index) -> None:
        """Append what a coder of this index made, which is not to be used any more."""
        if not has_room(len(self._file), codes.ntotal):
            self._write()
        self._file.add(codes)

    def close(self) -> None:
        """Write what is left."""
        if len(self._file) or not self._parts:
            self._write()

    def _write(self) -> None:
        self._file.write(self._folder / part_names(self._parts + 1)[-1], first=not self._parts)
        # A graph that was emptied would go on with the draws of the one before, so each begins anew.
        self._file, self._parts = VectorFile(copied(self._empty)), self._parts + 1


def copied(index: faiss.Index) -> faiss.Index:
    """An index as its file would hold it; FAISS's own copies leave kinds out, and its types differ from those read."""
    import faiss

    return faiss.deserialize_index(faiss.serialize_index(index))


def write_faiss(index: faiss.Index, file: Path) -> None:
    """Write what ``faiss.write_index`` would, which says nothing where the disk is full; raises OSError."""
    import faiss

    file.write_bytes(faiss.serialize_index(index).data)


def layers(codes: faiss.Index) -> list[faiss.Index]:
    """What holds codes: the index, or the two of one that looks at its codes again in full."""
    import faiss

    if not isinstance(codes, faiss.IndexRefine):
        return [codes]
    return [faiss.downcast_index(codes.base_index), faiss.downcast_index(codes.refine_index)]


def _merges(codes: faiss.Index) -> bool:
    """Whether codes of this kind can be put behind others, the same byte for byte: those of graphs and lists cannot."""
    import faiss

    held = layers(codes)
    try:
        for layer in held:
            layer.check_compatible_for_merge(layer)
    except RuntimeError:
        return False
    return not any(isinstance(layer, faiss.IndexIVF) for layer in held)


def _merge(whole: faiss.Index, more: faiss.Index) -> None:
    total = whole.ntotal + more.ntotal
    for first, second in zip(layers(whole), layers(more), strict=True):
        first.merge_from(second)
    whole.ntotal = total


def _clear_padding(codes: faiss.Index) -> None:
    """Zero what follows the last code in its block of fast-scan codes, as FAISS does unless codes are merged."""
    import faiss

    if isinstance(codes, faiss.IndexFastScan) and (padded := int(cast(Any, codes).ntotal2)):
        plain = cast(Any, codes)  # of whose members the hints know nothing
        packer = plain.get_CodePacker()
        blocks = faiss.rev_swig_ptr(plain.codes.get(), plain.codes.nbytes()).reshape(-1, packer.block_size)
        for number in range(codes.ntotal, padded):
            block, place = divmod(number, packer.nvec)
            packer.pack_1(np.zeros(packer.code_size, np.uint8), place, blocks[block : block + 1])
