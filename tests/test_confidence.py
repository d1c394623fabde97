"""The confidence is a probability that more evidence does not lower, whatever its weights are fitted to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomatch.confidence import (
    LEARNED,
    STRUCTURAL,
    Model,
    Signs,
    error_radius_px,
    model_of,
    probability,
    status_of,
)

ORDER = ("absent", "ambiguous", "located")
number = st.floats(-1e6, 1e6)
signs = st.builds(Signs, prominence=number, extent=number, lead=number, standing=st.none() | number)

models = st.sampled_from([STRUCTURAL, LEARNED])


@given(signs, models)
def test_any_evidence_gives_a_probability(evidence: Signs, model: Model) -> None:
    assert 0 <= probability(evidence, model) <= 1


@given(signs, st.floats(0, 1e6), models)
def test_standing_out_more_is_never_less_sure(evidence: Signs, more: float, model: Model) -> None:
    better = replace(evidence, prominence=evidence.prominence + more)
    assert probability(better, model) >= probability(evidence, model)
    ahead = replace(evidence, lead=evidence.lead + more)
    assert probability(ahead, model) >= probability(evidence, model)
    if evidence.standing is not None:
        sharper = replace(evidence, standing=evidence.standing + more)
        assert probability(sharper, model) >= probability(evidence, model)


def test_every_encoder_has_a_model() -> None:
    assert model_of("structural") == STRUCTURAL
    assert model_of("la3") == model_of("/somewhere/own.safetensors:alone") == LEARNED


@given(st.floats(0, 1), st.floats(0, 1), models)
def test_status_rises_with_confidence(one: float, two: float, model: Model) -> None:
    low, high = sorted((one, two))
    assert ORDER.index(status_of(low, model)) <= ORDER.index(status_of(high, model))


def test_certainty_is_located_and_its_opposite_absent() -> None:
    for model in (STRUCTURAL, LEARNED):
        assert [status_of(value, model) for value in (0.0, 1.0)] == ["absent", "located"]


def test_radius_of_a_cell_grows_with_it_and_that_of_pixels_does_not() -> None:
    assert error_radius_px("cell", 16) == 2 * error_radius_px("cell", 8)
    assert error_radius_px("pixel", 16) == error_radius_px("pixel", 8) > 0


@pytest.mark.parametrize("strong", [True, False])
def test_overwhelming_evidence_decides(strong: bool) -> None:
    size = 1e6 if strong else -1e6
    for model in (STRUCTURAL, LEARNED):
        assert (probability(Signs(size, 0.0, size), model) > 0.9) == strong


def test_attitude_that_was_sought_has_weights_of_its_own() -> None:
    model = replace(STRUCTURAL, sought=tuple(weight - 1 for weight in STRUCTURAL.pixels))
    evidence = Signs(5.0, 0.0, 1.0, 5.0)
    assert probability(evidence, model, sought=True) < probability(evidence, model)
    bare = replace(evidence, standing=None)
    assert probability(bare, model, sought=True) == probability(bare, model)
