"""The best weights are kept, by figure and then by log loss."""

import torch
from torch import nn

from finetune.train.best import Best, Candidate

NAN = float("nan")


def linear(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, value)
    return layer


def test_higher_figure_wins() -> None:
    best = Best("val_macro_f1")
    assert best.offer(Candidate("head", 1, 0.5, 1.0), linear(1.0))
    assert best.offer(Candidate("full", 1, 0.6, 2.0), linear(2.0))
    assert not best.offer(Candidate("full", 2, 0.55, 0.1), linear(3.0))
    target = linear(0.0)
    best.restore(target)
    assert target.weight.item() == 2.0


def test_equal_figures_are_told_apart_by_log_loss() -> None:
    best = Best("val_accuracy")
    best.offer(Candidate("head", 1, 0.5, 1.0), linear(1.0))
    assert not best.offer(Candidate("full", 1, 0.5, 1.5), linear(2.0))
    assert best.offer(Candidate("full", 2, 0.5, 0.9), linear(3.0))


def test_lower_loss_wins_where_a_loss_selects() -> None:
    best = Best("val_log_loss")
    best.offer(Candidate("head", 1, 1.0, 1.0), linear(1.0))
    assert best.offer(Candidate("full", 1, 0.8, 0.8), linear(2.0))


def test_latest_wins_where_there_is_no_validation() -> None:
    best = Best("val_macro_f1")
    best.offer(Candidate("full", 1, NAN, NAN), linear(1.0))
    assert best.offer(Candidate("full", 2, NAN, NAN), linear(2.0))


def test_kept_weights_do_not_follow_the_network() -> None:
    best, layer = Best("val_macro_f1"), linear(1.0)
    best.offer(Candidate("head", 1, 0.5, 1.0), layer)
    with torch.no_grad():
        layer.weight.fill_(9.0)
    best.restore(layer)
    assert layer.weight.item() == 1.0
