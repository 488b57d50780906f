"""The estimate foresees what a run will do, and takes what it does not know to be long."""

from pathlib import Path

import pytest

from finetune.data.index import index_source
from finetune.data.kept import KeptViews
from finetune.model.create import Model, create_model
from finetune.recipe.load import load_recipe
from finetune.recipe.resolve import resolve
from finetune.recipe.schema import ResolvedRecipe
from finetune.train.estimate import (
    MARGIN,
    SETUP_SECONDS,
    Costs,
    Foreseen,
    estimate_seconds,
    foresee_stages,
    measure_costs,
)
from finetune.types import BackboneFacts, DataFacts, MachineFacts

MACHINE = MachineFacts("cpu", "as asked for", has_fast_bf16=False, num_cpus=2)
DATA = DataFacts(num_train=100, num_val=20, class_counts=(50, 50))
COSTS = Costs(forward=0.2, fused=0.1, frozen=0.05, step=0.5, read=0.03, look=0.01)
HEAD = {"name": "head", "train": "head", "solver": "probe"}
LAST = {"name": "last", "train": {"last": 1}, "epochs": 3}


def resolved(*stages: dict[str, object], **values: object) -> ResolvedRecipe:
    backbone = {"backbone": "test_resnet", "pretrained": False}
    recipe = load_recipe(
        {"data": {"path": "photos"}, "model": backbone, "stages": stages, **values}
    )
    facts = BackboneFacts(family="conv", has_batch_norm=True, num_depths=5, num_blocks=9)
    return resolve(recipe, data=DATA, backbone=facts, machine=MACHINE)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A small network, its figures kept in the test's folder."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    return create_model(resolved(HEAD), num_classes=2)


def test_figures_at_the_end_read_validation_and_test_images_from_their_files() -> None:
    ends = [
        estimate_seconds(resolved(HEAD), DATA, COSTS, stages=[Foreseen()], num_test=num)
        for num in (0, 30)
    ]
    assert ends[1] - ends[0] == pytest.approx(MARGIN * 30 * (0.03 + 0.1))


def test_probe_is_one_look_at_every_image() -> None:
    seconds = estimate_seconds(resolved(HEAD), DATA, COSTS, stages=[Foreseen()])
    assert seconds == pytest.approx(
        MARGIN * (SETUP_SECONDS + 120 * (0.01 + 0.05) + 20 * (0.03 + 0.1))
    )


def test_training_everything_is_a_step_an_image_and_a_look_at_validation_each_epoch() -> None:
    recipe = resolved({"name": "full", "train": "all", "epochs": 3})
    seconds = estimate_seconds(recipe, DATA, COSTS, stages=[Foreseen()])
    epochs = 3 * (100 * (0.03 + 0.5) + 20 * (0.01 + 0.2))
    assert seconds == pytest.approx(MARGIN * (SETUP_SECONDS + epochs + 20 * (0.03 + 0.1)))


def test_frozen_layers_in_every_epoch_cost_their_forward_pass() -> None:
    foreseen = Foreseen(before=0.5, behind=0.2, is_stored=False)
    seconds = estimate_seconds(resolved(LAST), DATA, COSTS, stages=[foreseen])
    step = 0.5 * 0.2 + 0.2 * 0.5
    epochs = 3 * (100 * (0.03 + step) + 20 * (0.01 + 0.2))
    assert seconds == pytest.approx(MARGIN * (SETUP_SECONDS + epochs + 20 * (0.03 + 0.1)))


def test_stored_stage_computes_each_view_once_and_then_trains_the_rest() -> None:
    foreseen = Foreseen(before=0.5, behind=0.2, is_stored=True)
    recipe = resolved({**LAST, "views": 2})
    seconds = estimate_seconds(recipe, DATA, COSTS, stages=[foreseen])
    proof = 31 * 0.2
    once = 220 * 0.5 * 0.05 + 120 * 0.01 + 100 * 0.03
    epochs = 3 * (100 * 0.2 * 0.5 + 20 * 0.5 * 0.2)
    assert seconds == pytest.approx(
        MARGIN * (SETUP_SECONDS + proof + once + epochs + 20 * (0.03 + 0.1))
    )


def test_a_stage_of_the_last_group_is_foreseen_to_be_stored(model: Model) -> None:
    first, last = foresee_stages(resolved(HEAD, LAST), model, MACHINE)
    assert last.is_stored
    assert 0 < last.before < first.before < 1
    assert 0 < first.behind < last.behind < 1


@pytest.mark.parametrize(
    ("stage", "values"),
    [
        ({"views": 0}, {}),
        ({}, {"training": {"mixup": 0.2}}),
        ({"train": {"blocks": ["stem"]}}, {}),
        ({"train": {"lora": {}}}, {}),
    ],
)
def test_what_every_epoch_computes_is_foreseen(
    model: Model, stage: dict[str, object], values: dict[str, object]
) -> None:
    (foreseen,) = foresee_stages(resolved({**LAST, **stage}, **values), model, MACHINE)
    assert not foreseen.is_stored


def test_what_trains_everything_needs_no_course(model: Model, tmp_path: Path) -> None:
    recipe = resolved(HEAD, {"name": "full", "train": "all"})
    assert foresee_stages(recipe, model, MACHINE) == (Foreseen(), Foreseen())
    assert not (tmp_path / "cache").exists()


def test_frozen_layers_cost_what_their_precision_costs(model: Model, tiny_folder: Path) -> None:
    recipe = resolved(HEAD, runtime={"frozen_precision": "bf16"})
    speed = {"forward": 5.0, "fused": 10.0, "fused_bf16": 20.0}
    index, kept = index_source(str(tiny_folder)), KeptViews(model.preprocessing)
    assert measure_costs(recipe, model, index, speed=speed, kept=kept).frozen == 0.05


def test_images_that_were_kept_are_not_read_again(model: Model, tiny_folder: Path) -> None:
    index = index_source(str(tiny_folder))
    kept = KeptViews(model.preprocessing)
    speed = {"forward": 5.0, "fused": 10.0, "fused_bf16": 20.0, "train_fp32": 2.0}
    costs = measure_costs(resolved(HEAD), model, index, speed=speed, kept=kept)
    assert (costs.forward, costs.fused, costs.frozen, costs.step) == (0.2, 0.1, 0.1, 0.5)
    assert costs.look == costs.read > 0
