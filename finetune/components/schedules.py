"""Learning-rate schedules: pure functions of the part of a stage that is done.

Each section has one verb, `factor(progress)`, the multiple of the stage's learning rate at
`progress` in [0, 1) of the stage's optimiser steps. Warm-up is the stage's own value and is applied
before the schedule starts, unless that rises by itself.
"""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finetune.components.component import Component
from finetune.components.section import Number, Section

__all__ = ["ConstantSchedule", "CosineSchedule", "OneCycleSchedule", "Schedule", "StepSchedule"]


class _ScheduleSection(Section):
    """What schedules share: one that rises by itself is not warmed up as well."""

    rises: ClassVar[bool] = False


class ConstantSchedule(_ScheduleSection):
    """The learning rate of the stage, unchanged."""

    kind: Literal["constant"] = "constant"

    def factor(self, progress: float) -> float:
        """Give 1 everywhere."""
        return 1.0


class CosineSchedule(_ScheduleSection):
    """Half a cosine from the learning rate down to a part of it (1608.03983)."""

    kind: Literal["cosine"] = "cosine"
    final: Number = Field(0.01, ge=0, le=1, description="Multiple of the rate at the end.")

    def factor(self, progress: float) -> float:
        """Give a multiple in [final, 1], falling."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


class OneCycleSchedule(_ScheduleSection):
    """Up along a cosine to the learning rate, then down along another (1708.07120).

    It has a rise of its own: the stage's warm-up is left out.
    """

    rises: ClassVar[bool] = True
    kind: Literal["one_cycle"] = "one_cycle"
    peak: Number = Field(0.3, gt=0, lt=1, description="Part of the stage at which the rate peaks.")
    start: Number = Field(0.04, gt=0, le=1, description="Multiple of the rate at the start.")
    final: Number = Field(1e-4, ge=0, le=1, description="Multiple of the rate at the end.")

    def factor(self, progress: float) -> float:
        """Give a multiple in [min(start, final), 1]: rising before `peak`, falling after it."""
        rising = progress < self.peak
        low = self.start if rising else self.final
        part = progress / self.peak if rising else (1 - progress) / (1 - self.peak)
        return low + (1 - low) * (1 - math.cos(math.pi * part)) / 2


class StepSchedule(_ScheduleSection):
    """The learning rate, cut at fixed parts of the stage."""

    kind: Literal["step"] = "step"
    at: tuple[Annotated[Number, Field(gt=0, lt=1)], ...] = Field(
        (0.5, 0.75), description="Parts of the stage at which the rate is cut."
    )
    gamma: Number = Field(0.1, gt=0, lt=1, description="What each cut leaves.")

    def factor(self, progress: float) -> float:
        """Give gamma to the power of the number of cuts passed."""
        return float(self.gamma ** sum(progress >= cut for cut in self.at))


Schedule = Annotated[
    ConstantSchedule | CosineSchedule | OneCycleSchedule | StepSchedule, Component()
]
