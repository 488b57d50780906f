"""Every automatic value by its rule and with its reason; what cannot work is refused."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import RecipeError
from finetune.recipe.builtin import list_recipes
from finetune.recipe.load import load_recipe, parse_recipe
from finetune.recipe.resolve import choose_epochs, resolve
from finetune.types import BackboneFacts, DataFacts, MachineFacts

NAMES = [listing.name for listing in list_recipes()]
STAGE = "data: {path: x}\nstages: [{name: full, train: all, %s}]"


def stage(values):
    return parse_recipe(STAGE % values, source="x")


def messages(resolved, *args, **facts):
    with pytest.raises(RecipeError) as caught:
        resolved(*args, **facts)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("num_train", "epochs"),
    [
        (1, 30),
        (50, 30),
        (300, 30),
        (600, 21),
        (1000, 12),
        (1999, 6),
        (2000, 6),
        (5000, 5),
        (100_000, 5),
    ],
)
def test_epochs_follow_the_number_of_images(num_train, epochs):
    assert choose_epochs(num_train, 32).value == epochs


@given(st.integers(430, 1999))
def test_fewer_than_2000_images_are_shown_for_300_to_500_steps_of_32(num_train):
    steps = -(-num_train // 32) * choose_epochs(num_train, 32).value
    assert 300 <= steps <= 500


@given(st.integers(1, 10**7), st.integers(1, 4096))
def test_epochs_stay_between_5_and_30_and_above_2000_images_at_most_10(num_train, batch_size):
    epochs = choose_epochs(num_train, batch_size).value
    assert 5 <= epochs <= (30 if num_train < 2000 else 10)


def test_the_reason_for_epochs_holds_the_figures():
    assert choose_epochs(600, 32).reason == "21 epochs of 19 steps make 399 steps, near 400"
    assert choose_epochs(50, 32).reason == (
        "30 epochs of 2 steps make 60 steps, the most epochs there are for 50 images"
    )
    assert choose_epochs(5000, 32).reason == (
        "5 epochs of 157 steps make 785 steps, the fewest epochs there are for 5,000 images"
    )


def test_every_automatic_value_has_a_reason(resolved):
    assert resolved().reasons == {
        "stages.1.epochs": "21 epochs of 19 steps make 399 steps, near 400",
        "stages.1.layer_decay": (
            "a convolutional network with batch normalisation: every depth at the full rate"
        ),
        "stages.1.batch_norm": "pretraining knew more photos than a batch has: ahead on three sets",
        "data.resize": "as the weights were evaluated",
        "runtime.device": "auto: it is there",
        "runtime.precision": "it was measured",
        "runtime.frozen_precision": (
            "measured here: a pass in bf16 is 1.2 times as fast, too little for its rounding"
        ),
        "runtime.memory_format": "convolutions run faster with channels last",
        "runtime.workers": "4 cores, and training needs them as well",
    }


def test_what_a_person_wrote_stands_and_has_no_reason(resolved):
    recipe = resolved(
        "default",
        "stages.1.epochs=3",
        "stages.1.layer_decay=0.5",
        "stages.1.batch_norm=trained",
        "data.resize=pad",
        "runtime={device: 'cuda:1', precision: fp16, frozen_precision: bf16}",
        "runtime.memory_format=contiguous",
        "runtime.workers=3",
    )
    assert recipe.reasons == {}
    assert (recipe.stages[1].epochs, recipe.stages[1].layer_decay) == (3, 0.5)
    assert recipe.data.resize == "pad"
    runtime = recipe.runtime
    assert (runtime.device, runtime.precision) == ("cuda:1", "fp16")
    assert (runtime.frozen_precision, runtime.memory_format) == ("bf16", "contiguous")
    assert runtime.workers == 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", ["conv", "convnext", "hybrid", "vit"])
def test_no_value_of_a_resolved_recipe_is_auto(resolved, name, family):
    assert "auto" not in str(resolved(name, family=family).model_dump())


@pytest.mark.parametrize("name", NAMES)
def test_resolving_what_was_resolved_changes_nothing(resolved, name):
    first = resolved(name, num_train=20)
    again = resolved(first, num_train=20)
    assert again.model_dump() == first.model_dump()
    assert again.reasons == {}


def test_another_machine_repeats_the_choices_of_the_first(resolved):
    first = resolved()
    elsewhere = resolved(first, device="cuda:0", has_fast_bf16=True, family="vit", num_train=9000)
    assert elsewhere.model_dump() == first.model_dump()


def test_training_from_nothing_takes_more_epochs_at_the_full_rate(resolved):
    recipe = resolved("from-scratch", "stages.0.layer_decay=auto", family="vit")
    assert recipe.stages[0].epochs == 79
    assert recipe.reasons["stages.0.epochs"] == (
        "79 epochs of 19 steps make 1,501 steps, near 1,500: training starts from nothing"
    )
    assert recipe.stages[0].layer_decay == 1.0
    assert recipe.reasons["stages.0.layer_decay"] == (
        "no pretrained weights to keep: every depth at the full rate"
    )


@pytest.mark.parametrize(("num_train", "epochs"), [(40, 100), (10_000, 20)])
def test_training_from_nothing_takes_20_to_100_epochs(resolved, num_train, epochs):
    assert resolved("from-scratch", num_train=num_train).stages[0].epochs == epochs


@pytest.mark.parametrize(
    ("family", "layer_decay"), [("conv", 1.0), ("convnext", 0.9), ("hybrid", 0.9), ("vit", 0.75)]
)
def test_layer_decay_goes_by_the_kind_of_network(resolved, family, layer_decay):
    assert resolved(family=family).stages[1].layer_decay == layer_decay


@pytest.mark.parametrize(
    ("family", "memory_format"),
    [
        ("conv", "channels_last"),
        ("convnext", "channels_last"),
        ("hybrid", "channels_last"),
        ("vit", "contiguous"),
    ],
)
def test_the_layout_of_images_goes_by_the_kind_of_network(resolved, family, memory_format):
    assert resolved(family=family).runtime.memory_format == memory_format


@pytest.mark.parametrize(("has_fast_bf16", "precision"), [(True, "bf16"), (False, "fp32")])
def test_precision_is_bf16_where_it_pays(resolved, has_fast_bf16, precision):
    recipe = resolved(has_fast_bf16=has_fast_bf16)
    assert recipe.runtime.precision == precision
    assert recipe.reasons["runtime.precision"] == "it was measured"


@pytest.mark.parametrize(
    ("precision", "gain", "chosen", "reason"),
    [
        ("auto", 2.34, "bf16", "measured here: a pass in bf16 is 2.3 times as fast"),
        ("bf16", 2.34, "bf16", "measured here: a pass in bf16 is 2.3 times as fast"),
        (
            "auto",
            1.2,
            "fp32",
            "measured here: a pass in bf16 is 1.2 times as fast, too little for its rounding",
        ),
        ("auto", None, "fp32", "this device has no bf16 units that would pay for the rounding"),
        ("fp32", 2.34, "fp32", "with precision fp32 nothing is rounded to bf16"),
        ("fp16", 2.34, "fp32", "with precision fp16 nothing is rounded to bf16"),
    ],
)
def test_frozen_layers_are_in_bf16_where_it_pays_and_may_be(
    resolved, precision, gain, chosen, reason
):
    recipe = resolved(
        "default", f"runtime.precision={precision}", bf16_pass_gain=gain, num_train=5_000
    )
    assert recipe.runtime.frozen_precision == chosen
    assert recipe.reasons["runtime.frozen_precision"] == reason


@pytest.mark.parametrize(
    ("num_train", "novelty", "chosen", "words"),
    [
        (240, "true", "fp32", "but novelty needs 240 of 240 training images in fp32 as well"),
        (2_000, "true", "fp32", "but novelty needs 500 of 2,000 training images in fp32 as well"),
        (4_000, "true", "bf16", "measured here: a pass in bf16 is 2 times as fast"),
        (240, "false", "bf16", "measured here: a pass in bf16 is 2 times as fast"),
    ],
)
def test_nothing_is_computed_in_bf16_that_fp32_needs_as_well(
    resolved, num_train, novelty, chosen, words
):
    recipe = resolved(
        "default", f"evaluate.novelty={novelty}", bf16_pass_gain=2.0, num_train=num_train
    )
    assert recipe.runtime.frozen_precision == chosen
    assert recipe.reasons["runtime.frozen_precision"].endswith(words)


@pytest.mark.parametrize(
    ("family", "device", "chosen", "reason"),
    [
        ("conv", "cpu", "channels_last", "convolutions run faster with channels last"),
        ("conv", "cuda:0", "channels_last", "convolutions run faster with channels last"),
        ("vit", "cuda:0", "contiguous", "a transformer's work is on tokens, not on images"),
        ("conv", "mps", "contiguous", "on mps torch computes wrong gradients with channels last"),
    ],
)
def test_the_layout_is_that_which_network_and_device_are_good_at(family, device, chosen, reason):
    facts = FACTS | {
        "backbone": replace(FACTS["backbone"], family=family),
        "machine": replace(FACTS["machine"], device=device),
    }
    recipe = resolve(parse_recipe(STAGE % "epochs: 1", source="x"), **facts)
    assert recipe.runtime.memory_format == chosen
    assert recipe.reasons["runtime.memory_format"] == reason


def test_a_recipe_without_steps_stays_in_fp32(resolved):
    recipe = resolved("probe", has_fast_bf16=True)
    assert recipe.runtime.precision == "fp32"
    assert recipe.reasons["runtime.precision"] == "nothing is trained in steps"


@pytest.mark.parametrize(
    ("crop_mode", "resize"), [("center", "crop"), ("border", "pad"), ("squash", "squash")]
)
def test_images_are_fitted_as_the_weights_were_evaluated(resolved, crop_mode, resize):
    assert resolved(crop_mode=crop_mode).data.resize == resize


@pytest.mark.parametrize(
    ("num_cpus", "num_train", "device", "workers", "reason"),
    [
        (1, 9000, "cpu", 0, "one core: no process beside the one that trains"),
        (8, 199, "cpu", 0, "199 images are decoded before a process has started"),
        (2, 200, "cpu", 1, "2 cores, and training needs them as well"),
        (64, 9000, "cpu", 8, "64 cores, and training needs them as well"),
        (4, 9000, "cuda:0", 4, "4 cores"),
        (64, 9000, "cuda:0", 8, "64 cores"),
    ],
)
def test_workers_go_by_cores_and_images(resolved, num_cpus, num_train, device, workers, reason):
    recipe = resolved(num_cpus=num_cpus, num_train=num_train, device=device)
    assert (recipe.runtime.workers, recipe.reasons["runtime.workers"]) == (workers, reason)


def test_a_batch_larger_than_the_data_is_lowered(resolved):
    recipe = resolved(num_train=20)
    assert recipe.training.batch_size == 20
    assert recipe.reasons["training.batch_size"] == "32 lowered to the number of training images"
    assert recipe.stages[1].epochs == 30


def test_accumulated_batches_make_one_step():
    recipe = parse_recipe((STAGE % "epochs: auto") + "\ntraining: {accumulate: 4}", source="x")
    assert resolve(recipe, **FACTS).stages[0].epochs == choose_epochs(600, 128).value


FACTS = {
    "data": DataFacts(600, 100, (300, 300)),
    "backbone": BackboneFacts("conv", True, 7, 19),
    "machine": MachineFacts("cpu", "there is no other", False, 2),
}


def test_a_probe_has_no_reasons_and_one_pass(resolved):
    recipe = resolved("probe")
    assert (recipe.stages[0].epochs, recipe.stages[0].layer_decay) == (1, 1.0)
    assert not any(path.startswith("stages") for path in recipe.reasons)


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (
            "{last: 8}",
            "stages.0.train.last: the backbone has 7 coarse groups, not 8 "
            "(write all, or {last: 7} at most)",
        ),
        (
            "{blocks: [stem, 7]}",
            "stages.0.train.blocks: the backbone has no coarse group 7; they are stem and 1 to 6",
        ),
        (
            "{last_blocks: 20}",
            "stages.0.train.last_blocks: the backbone has 19 blocks, not 20 "
            "(write all, or {last_blocks: 19} at most)",
        ),
    ],
)
def test_a_stage_deeper_than_the_backbone_is_refused(resolved, train, expected):
    assert messages(resolved, stage("epochs: 1"), f"stages.0.train={train}") == [expected]


@pytest.mark.parametrize("train", ["{last: 7}", "{blocks: [stem, 6]}", "{last_blocks: 19}"])
def test_a_stage_as_deep_as_the_backbone_is_resolved(resolved, train):
    recipe = resolved(stage("epochs: 1"), f"stages.0.train={train}")
    assert recipe.stages[0].train == load_recipe(recipe).stages[0].train


def test_early_stopping_that_cannot_fire_within_the_chosen_epochs_is_refused(resolved):
    recipe = stage("early_stopping: {patience: 21}")
    assert messages(resolved, recipe) == [
        "stages.0.early_stopping.patience: "
        "early stopping with patience 21 cannot fire within epochs: 21 (write epochs)"
    ]
    assert resolved(recipe, num_train=500).stages[0].epochs > 21


def test_manifold_mixup_without_anything_stored_is_refused(resolved):
    text = "training: {manifold_mixup: 0.2}\nstages: [{name: a, train: %s}]"
    assert messages(resolved, parse_recipe(text % "all", source="x")) == [
        "training.manifold_mixup: no stage trains from what frozen layers computed once "
        "(write training.mixup)"
    ]
    recipe = parse_recipe(text % "{last: 1}", source="x")
    assert resolved(recipe).training.manifold_mixup == 0.2


def test_all_that_cannot_work_is_told_at_once(resolved):
    recipe = parse_recipe(
        "stages:\n"
        "  - {name: a, train: {last: 9}}\n"
        "  - {name: b, train: all, early_stopping: {patience: 50}}",
        source="x",
    )
    with pytest.raises(RecipeError) as caught:
        resolve(recipe, **FACTS)
    assert [problem.path for problem in caught.value.problems] == [
        "stages.0.train.last",
        "stages.1.early_stopping.patience",
        "data.path",
    ]
    assert caught.value.problems[-1].message == "no photos are named"
    assert caught.value.problems[-1].hint == "--data FOLDER"


def test_statistics_of_random_weights_follow_their_batches(resolved):
    stage = resolved("from-scratch").stages[0]
    assert stage.batch_norm == "trained"


def test_statistics_of_pretraining_are_kept(resolved):
    assert resolved("default").stages[1].batch_norm == "frozen"


def test_a_network_without_batch_normalisation_has_no_reason_for_its_mode(resolved):
    assert "stages.1.batch_norm" not in resolved("default", family="vit").reasons


@pytest.mark.parametrize(("epochs", "views"), [(1, 1), (2, 2), (4, 4), (5, 4), (60, 4)])
def test_views_follow_from_the_epochs_of_a_stage_with_frozen_layers(resolved, epochs, views):
    recipe = resolved(stage(f"epochs: {epochs}"), "stages.0.train={last: 2}")
    assert recipe.stages[0].views == views


def test_a_stage_that_trains_everything_has_no_views(resolved):
    recipe = resolved("default")
    assert [stage.views for stage in recipe.stages] == [0, 0]
    assert "stages.1.views" not in recipe.reasons
