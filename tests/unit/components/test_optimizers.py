"""Optimisers are timm's, by name; groups keep the rates they come with."""

import pytest
import torch
from torch import nn

from finetune.components.optimizers import OptimizerSection
from finetune.errors import RecipeError
from finetune.recipe.stages import Stage


def read(form):
    return Stage(name="one", train="all", optimizer=form).optimizer


def build(form, *, lr=0.1, weight_decay=0.2):
    layer = nn.Linear(3, 2)
    groups = [
        {"params": [layer.weight], "lr": 0.01, "weight_decay": 0.5},
        {"params": [layer.bias], "lr": 0.02, "weight_decay": 0.0},
    ]
    return layer, read(form).build(groups, lr=lr, weight_decay=weight_decay)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", torch.optim.SGD),
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
        ("AdamW", torch.optim.AdamW),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
def test_the_common_optimisers_are_those_of_torch(name, kind):
    _, optimizer = build(name)
    assert isinstance(optimizer, kind)


def test_any_other_of_timms_is_taken_by_its_name():
    _, optimizer = build("lamb")
    assert type(optimizer).__name__ == "Lamb"


def test_groups_keep_their_own_rate_and_decay():
    _, optimizer = build("adamw")
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.02]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]


def test_momentum_and_further_options_are_passed_on():
    _, optimizer = build({"name": "sgd", "momentum": 0.7, "options": {"nesterov": False}})
    assert optimizer.defaults["momentum"] == 0.7
    assert optimizer.defaults["nesterov"] is False


def test_a_list_of_numbers_is_an_option():
    _, optimizer = build({"name": "adamw", "options": {"betas": [0.8, 0.95]}})
    assert tuple(optimizer.defaults["betas"]) == (0.8, 0.95)


def test_a_step_moves_the_parameters():
    layer, optimizer = build("sgd")
    before = layer.weight.detach().clone()
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, layer.weight)


def test_a_word_stands_for_an_optimiser_with_its_defaults():
    assert read("sgd") == read({"name": "sgd"}) == OptimizerSection(name="sgd")


def test_an_unknown_optimiser_is_told_with_the_nearest_name():
    with pytest.raises(RecipeError) as caught:
        build("adamww")
    assert str(caught.value) == (
        "stages.optimizer: there is no optimiser 'adamww' (did you mean adamw?)\n"
        "hint: python -c 'import timm.optim; print(timm.optim.list_optimizers())'"
    )


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (
            {"name": "sgd", "nesterov": True},
            "optimizer.nesterov: unknown value 'nesterov' (allowed: name, momentum, options)",
        ),
        ({"name": "sgd", "momentum": 1}, "optimizer.momentum: must be less than 1, got 1"),
        ({"name": 3}, 'optimizer.name: expected text, got 3 (write "3", in quotes)'),
        (3, "optimizer: expected a mapping, got 3"),
        (
            {"options": {"betas": {}}},
            "optimizer.options.betas: "
            "expected a number or true or false or text or a list, got a mapping",
        ),
    ],
)
def test_a_wrong_optimiser_is_told_with_what_is_allowed(form, expected):
    with pytest.raises(RecipeError) as caught:
        read(form)
    assert str(caught.value) == expected


def test_an_option_that_the_optimiser_does_not_have_is_told_with_the_nearest_name():
    with pytest.raises(RecipeError) as caught:
        build({"name": "sgd", "options": {"nestrov": True, "betas": [0.9, 0.99]}})
    assert [problem.path for problem in caught.value.problems] == [
        "stages.optimizer.options.nestrov",
        "stages.optimizer.options.betas",
    ]
    assert caught.value.problems[0].message.startswith("sgd has no option 'nestrov'; it takes ")
    assert caught.value.problems[0].hint == "did you mean nesterov?"


def test_a_rate_among_the_options_is_refused():
    with pytest.raises(RecipeError, match="adamw has no option 'lr'"):
        build({"name": "adamw", "options": {"lr": 1.0}})


def test_an_option_out_of_range_is_told():
    with pytest.raises(RecipeError) as caught:
        build({"name": "adamw", "options": {"betas": [2.0, 0.9]}})
    assert str(caught.value) == (
        "stages.optimizer.options: adamw cannot be made: Invalid beta parameter at index 0: 2.0"
    )


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "lamb", "lion", "muon"])
def test_a_check_finds_nothing_wrong_with_an_optimiser_that_can_be_built(name):
    assert read(name).check() is None


@pytest.mark.parametrize("form", ["adamww", {"name": "sgd", "options": {"betas": [0.9, 0.99]}}])
def test_a_check_finds_what_building_would_find(form):
    with pytest.raises(RecipeError):
        read(form).check()
