"""Schedules are pure functions of progress; the figures are worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.components.schedules import (
    ConstantSchedule,
    CosineSchedule,
    OneCycleSchedule,
    StepSchedule,
)
from finetune.errors import RecipeError
from finetune.recipe.stages import Stage

PROGRESS = st.floats(0, 1, exclude_max=True)


def read(form):
    return Stage(name="one", train="all", schedule=form).schedule


def test_constant_keeps_the_rate():
    assert [ConstantSchedule().factor(progress) for progress in (0, 0.5, 0.99)] == [1, 1, 1]


def test_cosine_falls_from_the_rate_to_its_final_part():
    schedule = CosineSchedule(final=0.1)
    factors = [schedule.factor(progress) for progress in (0, 0.5, 1)]
    assert factors == pytest.approx([1, 0.55, 0.1])


@given(PROGRESS, PROGRESS)
def test_cosine_never_rises(first, second):
    early, late = sorted((first, second))
    assert CosineSchedule().factor(early) >= CosineSchedule().factor(late)


def test_one_cycle_rises_to_its_peak_and_falls_to_its_end():
    schedule = OneCycleSchedule(peak=0.25, start=0.2, final=0)
    factors = [schedule.factor(progress) for progress in (0, 0.125, 0.25, 0.625, 1)]
    assert factors == pytest.approx([0.2, 0.6, 1, 0.5, 0])


@given(PROGRESS)
def test_one_cycle_stays_within_its_limits(progress):
    assert 0 <= OneCycleSchedule().factor(progress) <= 1


def test_step_cuts_the_rate_at_each_mark():
    schedule = StepSchedule(at=(0.5, 0.75), gamma=0.1)
    factors = [schedule.factor(progress) for progress in (0, 0.49, 0.5, 0.74, 0.75, 0.99)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_word_stands_for_a_schedule_with_its_defaults():
    assert read("one_cycle") == OneCycleSchedule()


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (
            "cosin",
            "schedule: unknown value 'cosin'; allowed: constant, cosine, one_cycle, step "
            "(did you mean cosine?)",
        ),
        ({"kind": "step", "at": [0.5, 1.5]}, "schedule.at.1: must be less than 1, got 1.5"),
        ({"kind": "step", "at": 0.5}, "schedule.at: expected a list, got 0.5"),
        ({"kind": "cosine", "final": -1}, "schedule.final: must be at least 0, got -1"),
        (
            object(),
            "schedule: expected constant, cosine, one_cycle, step, got an object of class object",
        ),
    ],
)
def test_a_wrong_schedule_is_told_with_what_is_allowed(form, expected):
    with pytest.raises(RecipeError) as caught:
        read(form)
    assert str(caught.value) == expected
