"""Advice follows from the figures, says them, and is silent where they are silent."""

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from finetune.evaluate.slices import Slice
from finetune.report.advice import RULES, advise
from finetune.report.story import compare, tell

Read = Callable[..., Any]


def kinds(read: Read, **values: object) -> set[str]:
    """Name the rules that have something to say of a run."""
    return {advice.kind for advice in advise(*read(**values))}


def one(read: Read, kind: str, **values: object) -> Any:
    """Give what one rule says."""
    (found,) = [advice for advice in advise(*read(**values)) if advice.kind == kind]
    return found


# Each rule with a run that it speaks of, and one of which it says nothing.
CASES: list[tuple[str, dict[str, object], dict[str, object]]] = [
    ("leaks", {"num_leaked": 3}, {}),
    ("nothing_learned", {"accuracy": 0.3}, {}),
    ("no_test", {"has_test": False}, {}),
    ("suspects", {"accuracy": 0.7, "num_photos": 120}, {"accuracy": 1.0}),
    ("few_training_photos", {"num_train": 9}, {"num_train": 10}),
    ("few_test_photos", {"num_photos": 30}, {"num_photos": 600}),
    ("learned_by_heart", {"is_overfitted": True}, {}),
    ("still_learning", {"epochs": 5}, {"is_overfitted": True}),
    ("probe_is_enough", {"probe": 0.99}, {"probe": 0.3}),
    ("unsure_probabilities", {"accuracy": 0.4, "num_photos": 300}, {"num_photos": 60}),
]


@pytest.mark.parametrize(("kind", "speaks", "silent"), CASES, ids=[case[0] for case in CASES])
def test_a_rule_speaks_where_the_figures_do(
    read: Read, kind: str, speaks: dict[str, object], silent: dict[str, object]
) -> None:
    assert kind in kinds(read, **speaks)
    assert kind not in kinds(read, **silent)


def test_every_rule_is_known_by_the_kind_that_it_gives() -> None:
    untested = {rule.__name__ for rule in RULES} - {case[0] for case in CASES}
    assert untested == {"weak_classes", "weak_slices", "confused_pair", "left_out", "use_it"}


def test_a_leak_is_told_with_its_number_and_what_to_type(read: Read) -> None:
    advice = one(read, "leaks", num_leaked=3)
    assert advice.reason.startswith("3 of 60 test photos, or the pictures they show, were also")
    assert "--exclude findings.csv" in advice.command


def test_a_class_below_the_accuracy_by_more_than_chance_is_weak(read: Read) -> None:
    material, gallery = read(num_photos=300, accuracy=1.0)
    part = material.main
    first, *others = part.figures.per_class
    weak = replace(first, recall=0.3, recall_interval=(0.2, 0.4))
    part = replace(part, figures=replace(part.figures, per_class=(weak, *others)))
    given = advise(replace(material, parts={"test": part}), gallery)
    (advice,) = [advice for advice in given if advice.kind == "weak_classes"]
    assert advice.title == "Help 1 weak class"
    assert advice.reason.startswith("Photos found of ants (30 of 100): below the accuracy of 100 %")


@pytest.mark.parametrize(("num_classes", "is_named"), [(2, True), (100, False)])
def test_of_many_classes_one_that_looks_weak_may_be_so_by_chance(
    read: Read, num_classes: int, is_named: bool
) -> None:
    material, gallery = read(num_photos=300, accuracy=1.0)
    part = material.main
    plain = replace(part.figures.per_class[0], recall=0.9, support=20)
    rows = [replace(plain, name=f"class {number}") for number in range(num_classes)]
    rows[0] = replace(plain, recall=0.7)  # 14 of 20: p = 0.011 for one class that is right in 90 %
    figures = replace(part.figures, accuracy=0.9, per_class=tuple(rows))
    part = replace(part, figures=figures)
    given = advise(replace(material, parts={"test": part}), gallery)
    assert ("weak_classes" in {advice.kind for advice in given}) == is_named


def test_a_probe_that_is_surely_worse_is_not_advised(read: Read) -> None:
    material, gallery = read(probe=0.97)
    val = material.parts["val"]
    for low, is_advised in ((0.985, False), (0.965, True)):
        figures = replace(val.figures, accuracy=0.99, accuracy_interval=(low, 0.995))
        parts = {**material.parts, "val": replace(val, figures=figures)}
        given = advise(replace(material, parts=parts), gallery)
        assert ("probe_is_enough" in {advice.kind for advice in given}) == is_advised


def test_photos_of_a_kind_that_is_answered_worse_are_named(read: Read) -> None:
    material, gallery = read(num_photos=300)
    part = material.main
    dark = Slice(
        by="brightness",
        name="darkest quarter",
        low=0.0,
        high=40.0,
        num_samples=75,
        accuracy=0.5,
        accuracy_interval=(0.39, 0.61),
        rest_accuracy=0.9,
        is_small=False,
        p_value=0.001,
    )
    bright = replace(dark, name="brightest quarter", accuracy=0.8, p_value=0.2)
    part = replace(part, figures=replace(part.figures, slices=(bright, dark)))
    given = advise(replace(material, parts={"test": part}), gallery)
    (advice,) = [advice for advice in given if advice.kind == "weak_slices"]
    assert advice.title == "See to 1 kind of photos"
    assert advice.reason == (
        "Answered worse than the others, and not by chance: darkest quarter by brightness (50.0 % "
        "right, all others 90.0 %)."
    )


def test_the_pair_that_makes_most_mistakes_is_named(read: Read) -> None:
    advice = one(read, "confused_pair", accuracy=0.7)
    assert advice.title == "Tell ants and bees apart"
    assert advice.reason == "They are taken for each other in 8 of 18 mistakes."


def test_two_classes_are_no_confused_pair(read: Read) -> None:
    assert "confused_pair" not in kinds(read, classes=("ants", "bees"), accuracy=0.6)


def test_enough_photos_are_said_as_a_number(read: Read) -> None:
    advice = one(read, "few_test_photos", num_photos=30)
    assert advice.reason == (
        "From 30 photos the accuracy is only known to lie between 52.1 % and 83.3 %; about 330 "
        "would tell it to within 5 points."
    )


def test_an_evaluation_gives_no_advice_on_training(read: Read) -> None:
    material, gallery = read(accuracy=0.9)
    bare = replace(material, epochs=(), recipe=None, data=None)
    course = replace(bare.course, counts=MappingProxyType({}), left_out=())
    given = {one.kind for one in advise(replace(bare, course=course), gallery)}
    assert not given & {"use_it", "still_learning", "few_training_photos", "left_out"}


def test_the_story_says_what_how_good_and_how_sure(read: Read) -> None:
    material, _ = read(num_leaked=1)
    first, second, third = tell(material)
    assert first == (
        "test_resnet learned to tell 3 classes apart from 90 photos in photos by the recipe "
        "invented in 1 min 30 s."
    )
    low, high = material.main.figures.accuracy_interval
    assert f"expect {100 * low:.1f} to {100 * high:.1f} % (95 % interval)" in second
    assert third == "Careful: 1 of them also stands in the training part: expect less."


def test_the_model_is_compared_with_the_floor_and_with_the_probe(read: Read) -> None:
    floor, probe = compare(read(probe=0.6)[0])
    assert floor.name == "always answering “ants”"
    assert floor.accuracy == pytest.approx(1 / 3)
    assert (probe.accuracy, probe.part) == (0.6, "val")
