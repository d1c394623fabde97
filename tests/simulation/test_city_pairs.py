"""Simulated pairs: drawn anew, decided by the generator, one place in both images."""

from __future__ import annotations

import numpy as np

from geomatch.pairs import Pair
from geomatch.simulation.pairs import SimulatedPairs
from geomatch.structure import structure

SIDE = 256


def drawn(seed: int, count: int, draws: int = 2) -> list[Pair]:
    source, rng = SimulatedPairs(512, draws), np.random.default_rng(seed)
    return [source.draw(rng, SIDE) for _ in range(count)]


def test_pairs_have_the_form_of_every_source() -> None:
    for pair in drawn(1, 3):
        assert (pair.optical.shape, pair.sar.shape, pair.valid.shape) == (
            (3, SIDE, SIDE),
            (1, SIDE, SIDE),
            (SIDE, SIDE),
        )
        assert pair.optical.dtype == pair.sar.dtype == np.float32
        assert 0 <= pair.optical.min() < pair.optical.max() <= 1
        assert pair.sar.min() >= 0
        assert pair.valid.all()


def test_generator_decides_all() -> None:
    one, same, other = drawn(3, 3), drawn(3, 3), drawn(4, 3)
    for mine, equal, different in zip(one, same, other, strict=True):
        np.testing.assert_array_equal(mine.optical, equal.optical)
        np.testing.assert_array_equal(mine.sar, equal.sar)
        assert not np.array_equal(mine.optical, different.optical)


def test_city_is_left_after_so_many_draws() -> None:
    source, rng, cities = SimulatedPairs(512, 2), np.random.default_rng(0), []
    for _ in range(5):
        source.draw(rng, SIDE)
        if source._city is not None and not any(source._city is city for city in cities):
            cities.append(source._city)
    assert len(cities) >= 3


def test_both_images_show_the_same_place() -> None:
    """Orientation channels of the pair agree more than those of images shifted against each other."""
    right, shifted = [], []
    for pair in drawn(7, 4, draws=1):
        grey, log_sar = pair.optical.mean(axis=0), np.log(pair.sar[0] + 0.1)
        a, b = (structure(image, pair.valid, 8).values[:, 2:-2, 2:-2] for image in (grey, log_sar))
        a, b = (x - x.mean(axis=(1, 2), keepdims=True) for x in (a, b))
        right.append(float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())))
        rolled = np.roll(b, (9, 5), axis=(1, 2))
        shifted.append(float((a * rolled).sum() / np.sqrt((a * a).sum() * (b * b).sum())))
    assert np.mean(right) > np.mean(shifted) + 0.1


def test_crops_larger_than_a_city_are_cut_to_it() -> None:
    assert SimulatedPairs(512, 1).draw(np.random.default_rng(0), 4000).valid.shape == (512, 512)
