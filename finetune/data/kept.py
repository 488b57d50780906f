"""What evaluation sees of each image, kept in memory from the check on: decoded once a run.

The check decodes every image in full, before anything is trained. The probe, each validation pass
and the first view of a stored stage want the same picture cropped to the input's size, which takes
a few percent of its memory; as many as fit a budget are kept. What did not fit is decoded again.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from finetune.components.preprocess import Preprocessing

__all__ = ["KeptViews"]

_BUDGET_BYTES = 512 * 2**20  # some 3,500 images of 224 px


class KeptViews:
    """Evaluation's views of images by the digest of their files; several threads may add to it.

    Args:
        preprocessing: What evaluation does to an image.
        budget_bytes: Of all views together.

    Attributes:
        channels: Of an image: 1 grey, 3 RGB, 4 bands.
    """

    def __init__(
        self, preprocessing: "Preprocessing", *, budget_bytes: int = _BUDGET_BYTES
    ) -> None:
        self.channels = preprocessing.channels
        self._transform = preprocessing.transform()
        # The check decodes in full: what evaluation sees of a reduced decode is another picture.
        self._budget_bytes = budget_bytes if preprocessing.decode == "full" else 0
        self._num_bytes = 0
        self._views: dict[str, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self._views)

    def __getstate__(self) -> dict[str, object]:
        """Travel empty: a worker that is forked sees the views, one that is spawned decodes."""
        return {**self.__dict__, "_views": {}}

    def keep(self, digest: str, image: "Image") -> None:
        """Keep what evaluation sees of a fully decoded image, where it fits."""
        if self._num_bytes >= self._budget_bytes or digest in self._views:
            return
        view = self._transform(image)
        self._num_bytes += view.nbytes
        self._views[digest] = view

    def find(self, digest: str | None) -> "torch.Tensor | None":
        """Give the view (C, H, W) uint8 of a file's content; None where it was not kept."""
        return None if digest is None else self._views.get(digest)
