"""What training is at one moment: taken for a checkpoint, and put back when a run goes on.

Randomness and order follow from seed, stage, epoch and step, so that what a later step depends on
is small: the weights, what the optimiser remembers, and where in the recipe training stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from finetune.train.best import Candidate
from finetune.train.events import EpochEnded

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from finetune.train.loop import Stepper
    from finetune.train.session import Session

__all__ = ["restore_session", "restore_stepper", "session_state", "stepper_state"]

State = dict[str, Any]


def session_state(session: Session) -> State:
    """Take what the stages share: history, costs, the best weights so far."""
    candidate = session.best.candidate
    session.count_seconds()
    return {
        "num_steps": session.num_steps,
        "history": [asdict(row) for row in session.history],
        "seconds": dict(session.seconds),
        "probe": session.probe,
        "best": None if candidate is None else asdict(candidate),
        "best_weights": session.best.weights,
    }


def restore_session(session: Session, state: Mapping[str, Any]) -> None:
    """Put back what the stages share."""
    session.num_steps = state["num_steps"]
    session.history[:] = [EpochEnded(**row) for row in state["history"]]
    session.seconds.update(state["seconds"])
    session.probe = state["probe"]
    session.best.candidate = None if state["best"] is None else Candidate(**state["best"])
    session.best.weights = state["best_weights"]


def stepper_state(stepper: Stepper, network: torch.nn.Module) -> State:
    """Take what the steps of a stage change.

    Args:
        stepper: Of the stage.
        network: The whole network, of which the stepper may hold a part.
    """
    scaler = stepper.accelerator.scaler
    return {
        "network": network.state_dict(),
        "optimizer": stepper.optimizer.state_dict(),
        "schedule": stepper.schedule.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "ema": None if stepper.ema is None else stepper.ema.module.state_dict(),
    }


def restore_stepper(stepper: Stepper, state: Mapping[str, Any]) -> None:
    """Put back what the steps of a stage had changed, the weights of the network aside.

    Those are put back before the stage is prepared, since frozen layers are computed from them.
    """
    stepper.optimizer.load_state_dict(state["optimizer"])
    _lay_out(stepper.optimizer)
    stepper.schedule.load_state_dict(state["schedule"])
    if stepper.accelerator.scaler is not None:
        stepper.accelerator.scaler.load_state_dict(state["scaler"])
    if stepper.ema is not None:
        stepper.ema.module.load_state_dict(state["ema"])


def _lay_out(optimizer: Optimizer) -> None:
    """Lay what an optimiser remembers out in memory as the parameters are, as it was before."""
    for parameter, remembered in optimizer.state.items():
        for name, value in remembered.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                remembered[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
