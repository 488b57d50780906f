"""Heads: shapes, what a fresh one computes, and what a recipe may say."""

import pytest
import torch
from torch import nn

from finetune.components.heads import CosineHead, LinearHead, MlpHead, PythonHead
from finetune.errors import RecipeError
from finetune.recipe.schema import ModelSection


class Wide:
    """A head as a Python user writes one."""

    def build(self, in_features, num_classes):
        return nn.Linear(in_features, num_classes, bias=False)


def read(form):
    return ModelSection(head=form).head


def message(form):
    with pytest.raises(RecipeError) as caught:
        read(form)
    return str(caught.value)


@pytest.mark.parametrize("head", [CosineHead(), LinearHead(), MlpHead(), PythonHead(given=Wide())])
def test_a_head_turns_features_into_a_logit_a_class(head):
    assert head.build(16, 5)(torch.randn(3, 16)).shape == (3, 5)


def test_cosine_logits_do_not_depend_on_the_length_of_features():
    module = CosineHead(scale=10).build(8, 3)
    features = torch.randn(4, 8)
    torch.testing.assert_close(module(features), module(7 * features))
    assert module(features).abs().max() <= 10


def test_cosine_learns_its_scale():
    names = [name for name, _ in CosineHead().build(8, 3).named_parameters()]
    assert names == ["weight", "scale"]


def test_the_hidden_layer_of_an_mlp_has_the_width_asked_for():
    widths = [
        layer.out_features
        for layer in MlpHead(hidden=7).build(16, 5)
        if hasattr(layer, "out_features")
    ]
    assert widths == [7, 5]


def test_an_mlp_head_takes_a_batch_of_one():
    assert MlpHead().build(16, 5).train()(torch.randn(1, 16)).shape == (1, 5)


@pytest.mark.parametrize(
    ("word", "expected"), [("linear", LinearHead()), ("mlp", MlpHead()), ("cosine", CosineHead())]
)
def test_a_word_stands_for_a_head_with_its_defaults(word, expected):
    assert read(word) == read({"kind": word}) == expected


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("mpl", "head: unknown value 'mpl'; allowed: cosine, linear, mlp (did you mean mlp?)"),
        ({"kind": "x"}, "head.kind: unknown value 'x'; allowed: cosine, linear, mlp"),
        ({"hidden": 3}, "head.kind: is missing; allowed: cosine, linear, mlp"),
        ({"kind": ["mlp"]}, "head.kind: unknown value a list; allowed: cosine, linear, mlp"),
        ({"kind": "mlp", "hiden": 3}, "head.hiden: unknown value 'hiden' (did you mean hidden?)"),
        ({"kind": "mlp", "dropout": 1}, "head.dropout: must be less than 1, got 1"),
        ({"kind": "cosine", "scale": 0}, "head.scale: must be greater than 0, got 0"),
        (2, "head: expected cosine, linear, mlp, got 2"),
        (Wide, "head: Wide is a class; pass an object, Wide()"),
        (object(), "head: an object of class object is not a head: it has no method build"),
    ],
)
def test_a_wrong_head_is_told_with_what_is_allowed(form, expected):
    assert message(form) == expected


def test_any_object_with_the_verb_is_a_head_in_python():
    assert isinstance(read(Wide()), PythonHead)


def test_a_file_cannot_name_a_head_of_python():
    assert message(read(Wide()).model_dump(mode="json")) == (
        "head.given: a head made in Python cannot be named in a file; pass it as head="
    )
