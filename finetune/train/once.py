"""Frozen layers computed once: a stage that reads what crosses the freeze boundary from a store.

What lies before the cut of `model/boundary.py` is a function of the image alone. So it is computed
once for each view of each image and kept in a store, from which every epoch draws; what learns is
trained from there exactly as it would be within the whole network. The store is shared: a later
stage, run or process with the same weights, images and transforms computes nothing again. Where it
would not pay, not fit or not be right the stage goes the plain way, and the reason is told.

For that pass frozen batch normalisations are folded into their convolutions (`model/fuse.py`).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from finetune.errors import TrainingError
from finetune.model.boundary import NoSplit, Split, split_network
from finetune.model.fuse import fused
from finetune.model.store import (
    StoreFullError,
    choose_place,
    num_bytes_per_image,
    num_bytes_stored,
)
from finetune.runtime.space import free_disk, free_memory
from finetune.runtime.stores import stores_folder
from finetune.train.compute import DTYPES, Computing, Frozen, budgets_of, key_of
from finetune.train.stored import FromStored, StoredViews, ViewSampler, stored_loader
from finetune.types import Choice

if TYPE_CHECKING:
    from finetune.model.store import Place
    from finetune.recipe.schema import ResolvedRecipe, ResolvedStage
    from finetune.train.session import Session

__all__ = ["Once", "compute_once", "why_plain"]


@dataclass(frozen=True, slots=True)
class Once:
    """What a stage trains and reads where its frozen layers were computed once.

    Attributes:
        split: The two parts of the network.
        network: The trained part, from what is stored to logits.
        train: Batches of training, prepared.
        val: Batches of validation, prepared; None where there is no such part.
        sampler: The order of training; told each epoch.
    """

    split: Split
    network: FromStored
    train: Any
    val: Any
    sampler: ViewSampler


def compute_once(
    session: Session, stage: ResolvedStage, held: ExitStack, *, was_stored: bool | None = None
) -> Choice[Once | None]:
    """Compute what the frozen layers of a stage give, unless it is stored already.

    Args:
        session: Its network is frozen, and in its modes, as the stage says.
        stage: The stage that begins.
        held: Closes the stores when the stage is over.
        was_stored: What it did before it was interrupted, whatever room there was; else None.

    Returns:
        What to train from, and the sentence about it; None with the reason for the plain way, which
        is empty where nothing but the plain way was asked for.

    Raises:
        TrainingError: There is no room any more for what the interrupted stage trained from.
    """
    if not stage.views:
        return Choice(None, "")
    if was_stored is False:
        return Choice(None, "as before the interruption")
    inputs = session.inputs
    reason = why_plain(
        session.recipe, train_size=inputs.train_size, input_size=session.network.input_size
    )
    if reason:
        return Choice(None, reason)
    split = split_network(session.network)
    if isinstance(split, NoSplit):
        return Choice(None, split.reason)
    frozen = Frozen(
        fused(split.frozen, session.network.input_size),
        shapes=split.shapes,
        digest=f"{split.digest} fused",
        precision=session.recipe.runtime.frozen_precision,
    )
    place = _place(session, stage, frozen, free_disk=_free_disk(session, frozen))
    if place.value == "none" and not was_stored:
        return Choice(None, place.reason)
    try:
        work, train, val, place = _views(session, stage, frozen, place=place, held=held)
    except StoreFullError as error:
        if was_stored:
            raise TrainingError(
                f"stage {stage.name!r} trained from stored activations before it was interrupted, "
                f"and there is no room for them any more: {error.message}",
                hint="make room: finetune cache ls shows what is stored",
            ) from error
        return Choice(None, error.message)
    order = ViewSampler(train, inputs.sampler, session.recipe.seed)
    once = Once(
        split,
        FromStored(split.trained),
        _prepared(session, train, order),
        None if val is None else _prepared(session, val, ViewSampler(val, None, 0)),
        order,
    )
    counts = f"{work.num_computed} views computed, {work.num_found} were there"
    return Choice(once, f"{split.reason}; {place.reason}; {counts}")


def _free_disk(session: Session, frozen: Frozen) -> int:
    """Give the room on disk: what these very stores hold already need not be written again."""
    stored = sum(
        num_bytes_stored(key_of(session, frozen, is_plain=is_plain), frozen.shapes)
        for is_plain in (True, False)
    )
    return free_disk(stores_folder()) + stored


def _place(
    session: Session, stage: ResolvedStage, frozen: Frozen, *, free_disk: int
) -> Choice[Place]:
    """Choose where what crosses the boundary is stored, by the room that there is now."""
    inputs = session.inputs
    return choose_place(
        len(inputs.train_part.samples) + inputs.num_val,
        stage.views,
        num_bytes_per_image(frozen.shapes, DTYPES[frozen.precision]),
        free_disk=free_disk,
        free_memory=free_memory(),
        budgets=budgets_of(session.recipe),
    )


def _views(
    session: Session,
    stage: ResolvedStage,
    frozen: Frozen,
    *,
    place: Choice[Place],
    held: ExitStack,
) -> tuple[Computing, StoredViews, StoredViews | None, Choice[Place]]:
    """Compute the views of training and validation; in memory where the disk is full after all.

    Returns:
        The work, the views of both, and where they are in the end.

    Raises:
        StoreFullError: There is no room for them; nothing of them is kept open.
    """
    inputs = session.inputs
    with ExitStack() as opened:
        # Where no place was found a stage that goes on tries the disk, which may have it all.
        where: Literal["memory", "disk"] = "memory" if place.value == "memory" else "disk"
        work = Computing(session, frozen, place=where, held=opened)
        try:
            train = work.views(inputs.train_part, num_views=stage.views)
            val = None if inputs.val_part is None else work.views(inputs.val_part, num_views=1)
        except StoreFullError:
            place = _place(session, stage, frozen, free_disk=0)
            if where == "memory" or place.value != "memory":
                raise
        else:
            held.enter_context(opened.pop_all())
            return work, train, val, place
    return _views(session, stage, frozen, place=place, held=held)


def why_plain(
    recipe: ResolvedRecipe, *, train_size: tuple[int, int], input_size: tuple[int, int, int]
) -> str:
    """Say why the stages of a recipe cannot do without their images; empty where they can.

    Args:
        recipe: What is done to images in training.
        train_size: Height and width in pixels that augmentation delivers.
        input_size: (C, H, W) that evaluation sees.
    """
    if recipe.training.mixup or recipe.training.cutmix:
        return "mixup and CutMix mix images"
    if train_size != input_size[1:]:
        return "it trains at another size of image than it evaluates at"
    return ""


def _prepared(session: Session, views: StoredViews, order: ViewSampler) -> Any:
    """Make a loader and let Accelerate place its batches on the device."""
    loader = stored_loader(views, order, batch_size=session.recipe.training.batch_size)
    return session.accelerator.prepare(loader)
