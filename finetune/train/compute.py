"""Views of images sent through frozen layers, what is stored already left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch

from finetune.model.store import Budgets, StoreKey, image_id, open_store
from finetune.model.store_key import device_kind
from finetune.runtime.space import GIB, in_pieces
from finetune.train.events import progress_events
from finetune.train.stored import Row, StoredViews

if TYPE_CHECKING:
    from finetune.model.store import ActivationStore
    from finetune.model.store_key import Dtype
    from finetune.recipe.kinds import FrozenPrecision
    from finetune.recipe.schema import ResolvedRecipe
    from finetune.train.inputs import Part
    from finetune.train.session import Session

__all__ = ["DTYPES", "Computing", "Frozen", "budgets_of", "key_of"]

DTYPES: dict[FrozenPrecision, Dtype] = {"fp32": "float32", "bf16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class Frozen:
    """A computation that learns nothing.

    Attributes:
        compute: From normalised images (B, C, H, W) to tensors (B, …).
        shapes: Of the tensors, for one image.
        digest: Identifies the computation; another weight gives another.
        precision: Of the pass, and of what is stored.
    """

    compute: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
    shapes: tuple[tuple[int, ...], ...]
    digest: str
    precision: FrozenPrecision


def budgets_of(recipe: ResolvedRecipe) -> Budgets:
    """Give what a recipe lets stores take."""
    runtime = recipe.runtime
    return Budgets(int(runtime.cache_gib * GIB), runtime.cache_memory_share)


def key_of(session: Session, frozen: Frozen, *, is_plain: bool) -> StoreKey:
    """Gather everything that stored views depend on, but for the image.

    Args:
        session: What the stages share.
        frozen: What is computed.
        is_plain: Of views as evaluation sees them; else of augmented ones.
    """
    document: dict[str, Any] = {"input": session.preprocessing.model_dump(mode="json")}
    if not is_plain:
        augment = session.recipe.augment.model_dump(mode="json")
        document |= {"augment": augment, "seed": session.recipe.seed}
    return StoreKey(
        computation=frozen.digest,
        preprocessing=json.dumps(document, sort_keys=True),
        dtype=DTYPES[frozen.precision],
        memory_format=session.recipe.runtime.memory_format,
        precision=frozen.precision,
        device=device_kind(session.accelerator.device),
    )


class Computing:
    """Computes what is missing in the stores of one stage.

    Args:
        session: What the stages share.
        frozen: What is computed.
        place: Where it is stored.
        held: Closes the stores when the stage is over.
        budgets: What stores may take; None for what the recipe lets them take.

    Attributes:
        num_computed: Views that were computed.
        num_found: Views that were stored already.
    """

    def __init__(
        self,
        session: Session,
        frozen: Frozen,
        *,
        place: Literal["memory", "disk"],
        held: ExitStack,
        budgets: Budgets | None = None,
    ) -> None:
        self._session = session
        self._frozen = frozen
        self._place = place
        self._held = held
        self._budgets = budgets or budgets_of(session.recipe)
        self._stores: dict[bool, ActivationStore] = {}
        self.num_computed = 0
        self.num_found = 0

    def views(self, part: Part, *, num_views: int) -> StoredViews:
        """See to it that every view of the images of a split is stored.

        Raises:
            StoreFullError: There is no room for them.
        """
        ids = [
            [image_id(str(sample.digest), view) for view in range(num_views)]
            for sample in part.samples
        ]
        firsts = [row[0] for row in ids]
        plain = self._store(is_plain=True)
        self._fill(plain, part, [((i, 0), one) for i, one in enumerate(firsts)])
        places = torch.empty((len(ids), 0), dtype=torch.int64)
        if num_views == 1:
            return StoredViews(part.labels, plain, plain.locate(firsts), None, places)
        changed = self._store(is_plain=False)
        rest = [((i, v), one) for i, row in enumerate(ids) for v, one in enumerate(row) if v]
        self._fill(changed, part, rest)
        places = changed.locate([one for _, one in rest]).reshape(len(ids), -1)
        return StoredViews(part.labels, plain, plain.locate(firsts), changed, places)

    def _store(self, *, is_plain: bool) -> ActivationStore:
        """Open the store of plain or of changed views, once."""
        if is_plain not in self._stores:
            recipe = self._session.recipe
            # What a function from Python does, no key can tell.
            is_known = is_plain or recipe.augment.kind != "python"
            store = open_store(
                key_of(self._session, self._frozen, is_plain=is_plain),
                self._frozen.shapes,
                label=recipe.model.backbone,
                place=self._place if is_known else "memory",
                budgets=self._budgets,
            )
            self._stores[is_plain] = self._held.enter_context(store)
        return self._stores[is_plain]

    @torch.no_grad()
    def _fill(
        self, store: ActivationStore, part: Part, wanted: Sequence[tuple[Row, bytes]]
    ) -> None:
        """Compute and store what is missing."""
        missing = [wanted[index] for index in store.missing([one for _, one in wanted])]
        self.num_computed += len(missing)
        self.num_found += len(wanted) - len(missing)
        session, device = self._session, self._session.accelerator.device
        report = progress_events("features", session.on_event)
        loader = part.views([row for row, _ in missing]) if missing else ()
        done = 0
        for images, _, indices in loader:
            inputs = session.preprocessing.normalize(images.to(device))
            found = [missing[index][1] for index in indices.tolist()]
            in_pieces(partial(self._add, store, found, inputs), len(found))
            done += len(images)
            report(done, len(missing))

    def _add(
        self, store: ActivationStore, ids: Sequence[bytes], inputs: torch.Tensor, rows: slice
    ) -> None:
        """Compute and store some images of a batch."""
        with self._precision():
            crossing = self._frozen.compute(inputs[rows])
        store.add(ids[rows], crossing)

    def _precision(self) -> AbstractContextManager[Any]:
        """Compute in the precision asked for, whatever training uses."""
        if self._frozen.precision == "fp32":
            return nullcontext()
        return torch.autocast(self._session.accelerator.device.type, dtype=torch.bfloat16)
