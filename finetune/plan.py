"""What a run would do: everything found and chosen, nothing trained, nothing written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.components.augment import NoAugment, StandardAugment
from finetune.components.metrics import is_defined
from finetune.data.index import index_source, require_trainable
from finetune.data.kept import KeptViews
from finetune.data.prepare import (
    describe_data,
    exclude_listed,
    mean_lost_fraction,
    prepare_data,
)
from finetune.data.words import counted
from finetune.errors import Problem, RecipeError
from finetune.model.backbone import canonical_name
from finetune.model.create import Model, create_model
from finetune.model.family import describe_backbone
from finetune.recipe.check import find_foreign_problems, require_extras
from finetune.recipe.resolve import resolve
from finetune.recipe.values import describe_choices
from finetune.runtime.allocator import freed_memory_kept
from finetune.runtime.device import machine_facts, require_one_process
from finetune.runtime.imports import importing
from finetune.runtime.paths import real_path
from finetune.train.estimate import estimate_seconds, foresee_stages, measure_costs
from finetune.train.events import DataFound, OnEvent, RecipeResolved, Warned, progress_events
from finetune.train.preview import require_adapters
from finetune.train.speed import measure_speed, with_bf16_choice

if TYPE_CHECKING:
    from finetune.recipe.schema import Recipe, ResolvedRecipe
    from finetune.types import Index, MachineFacts

__all__ = ["Plan", "plan"]

_MUCH = 0.3  # of the pixels; a centre crop of 0.875 takes 23 % of a square photo already


@dataclass(frozen=True, slots=True)
class Plan:
    """A run before it trains: everything found and chosen, nothing written.

    Attributes:
        recipe: Every automatic value chosen, with its reason.
        index: The samples, checked and split.
        model: The network and what its input must be.
        machine: Device and cores.
        kept: What evaluation sees of the images, as far as it was kept.
        data_seconds: What reading, checking and splitting the data cost.
        estimate_seconds: What training is expected to take.
    """

    recipe: ResolvedRecipe
    index: Index
    model: Model
    machine: MachineFacts
    kept: KeptViews
    data_seconds: float
    estimate_seconds: float


@freed_memory_kept()
def plan(
    recipe: Recipe,
    *,
    on_event: OnEvent | None = None,
    index: Index | None = None,
    imports_ahead: bool = False,
) -> Plan:
    """Find out everything a run depends on, without training or writing anything.

    Args:
        recipe: What to do; `data.path` names the data unless `index` is given.
        on_event: Receives what happens.
        index: Samples that are indexed already.
        imports_ahead: Import what a run needs later while the photos are checked.

    Raises:
        FinetuneError: One of its branches, each with its hint; see `finetune.errors`.
    """
    tell: OnEvent = on_event or (lambda event: None)
    problems = find_foreign_problems(recipe)
    if problems:
        raise RecipeError(problems)
    require_extras(recipe)
    require_one_process()
    machine = machine_facts(recipe.runtime.device)
    recipe = _placed(recipe, given=index)
    started = time.perf_counter()
    listed = index or index_source(_data_path(recipe), follow_links=recipe.data.follow_links)
    found = exclude_listed(listed, recipe.data)
    require_trainable(found)
    listing_seconds = time.perf_counter() - started
    model = create_model(recipe, num_classes=len(found.classes))  # may fail: before minutes of work
    require_adapters(model.network, recipe)
    if model.preprocessing.channels != 3:  # a step of the augmentation may need colours
        recipe.augment.build(model.train_spec)
    started = time.perf_counter()
    kept = KeptViews(model.preprocessing)
    with importing(_needed_later(recipe) if imports_ahead else ()):
        index = _prepare(found, recipe, kept, num_cpus=machine.num_cpus, tell=tell)
        data_seconds = listing_seconds + time.perf_counter() - started
    _require_figures(recipe, index)
    facts = describe_data(index)
    backbone = describe_backbone(model.network, model.preprocessing)
    for message in _odd_values(recipe):
        tell(Warned(message))
    is_last = backbone.prefers_channels_last(machine.device)
    speed = measure_speed(model, machine, channels_last=is_last, is_trained=recipe.makes_steps)
    machine = with_bf16_choice(machine, speed)
    resolved = resolve(recipe, data=facts, backbone=backbone, machine=machine)
    estimate = estimate_seconds(
        resolved,
        facts,
        measure_costs(resolved, model, index, speed=speed, kept=kept),
        stages=foresee_stages(resolved, model, machine),
        num_test=len(index.part("test")),
    )
    choices = {"input": _describe_input(model, index), **describe_choices(resolved)}
    tell(RecipeResolved(choices, estimate))
    return Plan(resolved, index, model, machine, kept, data_seconds, estimate)


def _needed_later(recipe: Recipe) -> tuple[str, ...]:
    """Name the modules that a run needs later; scikit-learn takes as long to import as torch."""
    of_figures = ("sklearn.linear_model", "sklearn.metrics", "sklearn.model_selection")
    return (*of_figures, "timm.optim") if recipe.makes_steps else of_figures


def _odd_values(recipe: Recipe) -> Iterator[str]:
    """Say which values do not do what a person who gave them may think."""
    if recipe.training.class_weights == recipe.training.sampler == "balanced":
        yield "training: class_weights and sampler each make up for the counts: drop one"
    if not recipe.makes_steps and recipe.augment not in (NoAugment(), StandardAugment()):
        yield (
            f"augment: {recipe.augment.kind} changes nothing: no stage learns by gradient; a "
            "recipe without stages is a probe alone"
        )


def _prepare(
    found: Index, recipe: Recipe, kept: KeptViews, *, num_cpus: int, tell: OnEvent
) -> Index:
    """Check and split the samples, and tell what was found."""
    index = prepare_data(
        found,
        recipe.data,
        kept=kept,
        seed=recipe.seed,
        num_cpus=num_cpus,
        progress=progress_events("check", tell),
    )
    tell(DataFound.from_index(index))
    for warning in index.warnings:
        tell(Warned(warning))
    return index


def _require_figures(recipe: Recipe, index: Index) -> None:
    """Refuse to choose by a figure that these validation photos do not define.

    Raises:
        RecipeError: With all of them.
    """
    asked = {"evaluate.select_by": recipe.evaluate.select_by}
    for number, stage in enumerate(recipe.stages):
        if stage.early_stopping is not None:
            asked[f"stages.{number}.early_stopping.metric"] = stage.early_stopping.metric
    num_classes = len(index.classes)
    num_found = len({sample.label for sample in index.part("val")})
    problems = [
        Problem(
            path,
            f"{name} is undefined for these validation photos, which show {num_found} of "
            f"{counted(num_classes, 'class')}",
            hint="val_macro_f1 is always defined",
        )
        for path, name in asked.items()
        if not is_defined(name, num_classes=num_classes, num_found=num_found)
    ]
    if problems:
        raise RecipeError(problems)


def _describe_input(model: Model, index: Index) -> str:
    """Say what an image becomes, and what share of these photos that leaves out."""
    lost = mean_lost_fraction(index, model.preprocessing)
    remedy = "; data.resize: pad or squash keeps them" if lost > _MUCH else ""
    return f"{model.preprocessing.describe()}; cuts off {lost:.0%} of the pixels{remedy}"


def _data_path(recipe: Recipe) -> str:
    """The path of the data; a recipe without one, or with labels of its own, is refused."""
    if recipe.data.listed:
        what = "the photos and labels of this recipe were given one by one in Python"
        raise RecipeError(
            [Problem("data.listed", what)],
            hint="Classifier(recipe=...).fit(paths, labels), or name a folder or CSV: --data",
        )
    if recipe.data.path is None:
        raise RecipeError(
            [Problem("data.path", "no data is named")], hint="finetune run --data FOLDER"
        )
    return recipe.data.path


def _placed(recipe: Recipe, *, given: Index | None) -> Recipe:
    """Make the places in a recipe absolute, so that it repeats from anywhere.

    Samples that are given count, whatever data the recipe names.
    """
    section, model = recipe.data, recipe.model
    source = real_path(_data_path(recipe)) if given is None else given.root
    lists = {"exclude": section.exclude, "split": section.split}
    placed = {name: str(real_path(file)) for name, file in lists.items() if file is not None}
    named = {"backbone": canonical_name(model.backbone)}
    if model.weights is not None:
        named["weights"] = str(real_path(model.weights))
    return recipe.model_copy(
        update={
            "data": section.model_copy(
                update={"path": str(source), "listed": given is not None, **placed}
            ),
            "model": model.model_copy(update=named),
        }
    )
