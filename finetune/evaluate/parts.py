"""The figures of a run: validation, what is fitted on it, and the test part, by the saved model."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from finetune.data.groups import dependence_note
from finetune.data.leaks import are_leaked, leak_warnings
from finetune.errors import RecipeError
from finetune.evaluate.evaluate import evaluate
from finetune.evaluate.fitting import fit_calibration
from finetune.evaluate.novelty import sample_reference
from finetune.evaluate.result import PredictionSpeed
from finetune.model.bundle import add_calibration
from finetune.model.features import compute_features
from finetune.model.inference import InferenceOptions, predict_samples
from finetune.train.compute import budgets_of
from finetune.train.events import progress_events
from finetune.types import Choice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune.data.kept import KeptViews
    from finetune.evaluate.result import EvalResult
    from finetune.model.bundle import Bundle
    from finetune.recipe.schema import ResolvedRecipe
    from finetune.train.events import OnEvent
    from finetune.types import Index, Outputs, Split

__all__ = ["Evaluated", "evaluate_parts"]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What the parts gave.

    Attributes:
        bundle: The model with all that was fitted.
        results: Figures by split, `val` before `test`.
        speed: How fast their images were predicted.
    """

    bundle: Bundle
    results: dict[str, EvalResult]
    speed: PredictionSpeed


def evaluate_parts(
    bundle: Bundle,
    index: Index,
    recipe: ResolvedRecipe,
    *,
    kept: KeptViews | None = None,
    on_event: OnEvent,
) -> Evaluated:
    """Predict validation, fit on it what the recipe asks for, save that, and predict the test part.

    Args:
        bundle: The saved model.
        index: All samples; those of training are what novelty is measured against.
        recipe: What to fit, and how prediction runs.
        kept: Has what evaluation sees of some images already.
        on_event: Receives how far it is.
    """
    work = _Work(index, recipe, _options(recipe), kept, on_event)
    results, speeds = {}, []
    val = index.part("val")
    if val:
        reason = _why_no_features(bundle, recipe)
        outputs, speed = work.predict(bundle, "val", keeps_features=reason is None)
        speeds.append(speed)
        reference = work.reference(bundle, reason)
        leaked = np.array(are_leaked(index, "val"))
        calibration = fit_calibration(outputs, recipe.evaluate, reference=reference, leaked=leaked)
        bundle = add_calibration(bundle, calibration)
        results["val"] = work.score(bundle.calibration.applied(outputs), "val")
    if index.part("test"):
        outputs, speed = work.predict(bundle, "test")
        speeds.append(speed)
        results["test"] = work.score(outputs, "test")
    return Evaluated(bundle, results, _total(speeds))


@dataclass(frozen=True, slots=True)
class _Work:
    """What the parts share."""

    index: Index
    recipe: ResolvedRecipe
    options: InferenceOptions
    kept: KeptViews | None
    on_event: OnEvent

    def predict(
        self, bundle: Bundle, split: Split, *, keeps_features: bool = False
    ) -> tuple[Outputs, PredictionSpeed]:
        """Predict the images of a split, and time it."""
        samples = self.index.part(split)
        began = time.perf_counter()
        outputs = predict_samples(
            bundle,
            samples,
            options=replace(self.options, keeps_features=keeps_features),
            progress=progress_events("predict", self.on_event),
        )
        return outputs, PredictionSpeed(len(samples), time.perf_counter() - began)

    def reference(self, bundle: Bundle, why_not: str | None) -> Choice[NDArray[np.float32] | None]:
        """Give the features (M, D) of some training photos: stored by a probe, or computed."""
        if why_not is not None:
            return Choice(None, why_not)
        features = compute_features(
            bundle,
            sample_reference(self.index.part("train")),
            label=self.recipe.model.backbone,
            options=self.options,
            kept=self.kept,
            progress=progress_events("novelty", self.on_event),
        )
        return Choice(features, "training photos")

    def score(self, outputs: Outputs, split: Split) -> EvalResult:
        """Make the figures of a split."""
        dependence = dependence_note(self.index.part(split))
        return evaluate(
            replace(outputs, features=None),
            split=split,
            seed=self.recipe.seed,
            notes=[*leak_warnings(self.index, split), *filter(None, [dependence])],
        )


def _total(speeds: list[PredictionSpeed]) -> PredictionSpeed:
    """Add up what was predicted."""
    return PredictionSpeed(
        sum(speed.num_images for speed in speeds), sum(speed.seconds for speed in speeds)
    )


def _options(recipe: ResolvedRecipe) -> InferenceOptions:
    """Say how prediction runs; in fp32, whatever training used."""
    return InferenceOptions(
        device=recipe.runtime.device,
        batch_size=recipe.training.batch_size,
        workers=recipe.runtime.workers,
        max_pixels=recipe.data.max_pixels,
        budgets=budgets_of(recipe),
    )


def _why_no_features(bundle: Bundle, recipe: ResolvedRecipe) -> str | None:
    """Say why no features are compared; None where they are."""
    if not recipe.evaluate.novelty:
        return "not asked for"
    try:
        bundle.network.answering_modules()
    except RecipeError:
        return "the classifier of this backbone is linear in no features"
    return None
