"""Examples as they are retrieved, kept and changed; every shipped configuration runs a step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from towns import Town

from geomatch.errors import InputError, UsageError
from geomatch.index.build import build_index
from geomatch.index.plan import BuildOptions
from geomatch.metrics import overlap
from geomatch.nets.shapes import RerankerShape
from geomatch.reranking.graph import graph_reranker
from geomatch.training.losses import Windows
from geomatch.training.pooled import pooled
from geomatch.training.reranker.cache import Example, RetrievalConfig, changed, retrieved
from geomatch.training.reranker.joint import GraphLoss, gallery_of
from geomatch.training.reranker.task import load_reranker_config, train_reranker

CONFIGS = Path(__file__).parents[3] / "configs" / "reranker"


@pytest.fixture(scope="module")
def folder(scenes: Path, town: Town, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the town with few tiles, and a scene of it."""
    made = tmp_path_factory.mktemp("retrieval")
    build_index(town.path, made / "town.gmi", BuildOptions(encoder="structural", stride_px=32))
    (made / "sar.tif").write_bytes((scenes / "sar.tif").read_bytes())
    return made


def plan(**more: object) -> RetrievalConfig:
    made = RetrievalConfig("town.gmi", "sar.tif", windows=4, elsewhere="sar.tif", elsewhere_windows=2)
    return replace(made, **more)  # type: ignore[arg-type]


def ask(folder: Path, config: RetrievalConfig, cache: Path, k: int = 10) -> list[Example]:
    return retrieved(config, root=folder, k=k, seed=3, cache=cache, progress=lambda *_: None)


def test_examples_know_which_candidates_overlap_the_place(folder: Path, tmp_path: Path) -> None:
    examples = ask(folder, plan(), tmp_path)
    assert len(examples) == 6
    assert all(one.right[0] for one in examples[:4])
    assert not any(one.right.any() for one in examples[4:])
    first = examples[0].candidates
    near = overlap(first.corners_px - first.corners_px[0], (200, 200))
    assert (near[examples[0].right] > 0.2).all()


def test_cache_gives_what_was_retrieved_and_is_used(folder: Path, tmp_path: Path) -> None:
    first = ask(folder, plan(), tmp_path)
    (file,) = tmp_path.glob("*.npz")
    stamp = file.stat().st_mtime_ns
    again = ask(folder, plan(), tmp_path)
    assert file.stat().st_mtime_ns == stamp
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.candidates.scores, other.candidates.scores)
        np.testing.assert_array_equal(one.right, other.right)
    assert len(ask(folder, plan(looks=[2.0]), tmp_path)) == 6
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_damaged_cache_is_named(folder: Path, tmp_path: Path) -> None:
    ask(folder, plan(), tmp_path)
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="is no cache of examples") as caught:
        ask(folder, plan(), tmp_path)
    assert "Remove it" in str(caught.value)


def test_no_index_is_a_usage_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no index or no scene"):
        ask(folder, plan(index=""), tmp_path)


def test_changes_keep_distances_scores_and_agreement(folder: Path, tmp_path: Path) -> None:
    example = ask(folder, plan(), tmp_path)[0]
    rng = np.random.default_rng(0)
    for _ in range(20):
        made = changed(example, rng, fewest=4, without=0.0)
        count = len(made.candidates)
        assert 4 <= count <= len(example.candidates)
        np.testing.assert_array_equal(made.candidates.scores, example.candidates.scores[:count])
        np.testing.assert_array_equal(made.right, example.right[:count])
        ours, theirs = made.candidates.corners_px, example.candidates.corners_px[:count]
        apart = [np.linalg.norm(places[:, None] - places[None], axis=2) for places in (ours, theirs)]
        np.testing.assert_allclose(*apart)
        np.testing.assert_allclose(
            made.candidates.agreement.sum(axis=(1, 2)), example.candidates.agreement[:count].sum(axis=(1, 2)), rtol=1e-5
        )


def test_mirroring_moves_places_and_parts_alike(folder: Path, tmp_path: Path) -> None:
    """A tile whose right half agrees lies to the right of what it overlaps; mirrored, both are on the left."""
    example = ask(folder, plan(), tmp_path)[0]
    count = len(example.candidates)
    parts = np.zeros((count, 4, 4), np.float32)
    corners = np.zeros((count, 2), np.int32)
    corners[1], parts[1, :, 3] = (50, 0), 1.0
    marked = replace(example.candidates, corners_px=corners, agreement=parts)
    for seed in range(16):
        made = changed(replace(example, candidates=marked), np.random.default_rng(seed), fewest=count, without=0.0)
        dx, dy = (made.candidates.corners_px[1] - made.candidates.corners_px[0]).tolist()
        mass = made.candidates.agreement[1]
        across, down = mass.sum(axis=0), mass.sum(axis=1)
        assert int(np.sign(dx)) == int(np.sign(across[2:].sum() - across[:2].sum()))
        assert int(np.sign(dy)) == int(np.sign(down[2:].sum() - down[:2].sum()))


def test_place_can_be_left_out(folder: Path, tmp_path: Path) -> None:
    example = ask(folder, plan(), tmp_path)[0]
    made = changed(example, np.random.default_rng(0), fewest=2, without=1.0)
    assert not made.right.any()
    assert len(made.candidates) >= 2


@pytest.mark.parametrize("shipped", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configuration_runs_a_step(shipped: Path, folder: Path, tmp_path: Path) -> None:
    given = OmegaConf.load(shipped)
    retrievals = [{"index": "town.gmi", "sar": "sar.tif", "windows": 4, "elsewhere": "sar.tif", "elsewhere_windows": 2}]
    given["data"] |= {"root": str(folder), "cache": str(tmp_path / "cache"), "retrievals": retrievals, "fewest": 3}
    given["validation"]["retrievals"] = retrievals
    file = tmp_path / shipped.name
    OmegaConf.save(given, file)
    small = ["data.batch=2", "data.steps_per_epoch=1", "trainer.max_epochs=1", "data.candidates=8"]
    small += ["trainer.precision=32-true", "trainer.accelerator=cpu", "net.width=8", "loss.ranking=0.1"]
    weights = train_reranker(load_reranker_config(file, small), tmp_path / "run")
    found = ask(folder, plan(), tmp_path / "cache", k=8)[0].candidates
    made = graph_reranker(str(weights), "mine")(found)
    assert sorted(made.order.tolist()) == list(range(len(found)))
    assert np.isfinite(made.present)


def test_unknown_positions_are_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown positions 'absolute'") as caught:
        load_reranker_config(CONFIGS / "graph.yaml", ["net.positions=absolute"])
    assert "embedding" in str(caught.value)


def test_gallery_of_a_batch_is_its_crops_tiles() -> None:
    fields = torch.rand(2, 3, 30, 30)
    gallery = gallery_of(fields, 200)
    assert len(gallery.vectors) == 2 * 2 * 2
    for number in (0, 3, 5):
        at = gallery.at_px[number][None]
        expected = pooled(fields[int(gallery.crop[number])][None], at, 200)[0]
        torch.testing.assert_close(gallery.vectors[number], expected)


def test_joint_loss_moves_the_encoders_features() -> None:
    torch.manual_seed(0)
    fields = torch.rand(3, 4, 49, 49, requires_grad=True)
    truth = torch.tensor([[3.0, 6.0], [12.0, 0.0], [9.0, 9.0]])
    cut = torch.stack(
        [fields[i, :, int(row) : int(row) + 25, int(col) : int(col) + 25] for i, (col, row) in enumerate(truth)]
    )
    loss = GraphLoss(RerankerShape(width=8, layers=1, heads=2))
    value = loss(Windows(torch.arange(3), cut, truth), fields, 200)
    value.backward()
    assert fields.grad is not None
    assert float(fields.grad.abs().sum()) > 0
