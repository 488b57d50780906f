"""Read a photo in mid-run: the one that was looked at before the run, or none.

Whoever changes, moves or cuts a photo while a run is under way is told so. What a run learns from,
and what it stores of photos for other runs, is what its index says.
"""

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from torch.utils.data import get_worker_info

from finetune.data.content import digest_of
from finetune.data.decode import UnreadableImageError, open_image_file
from finetune.errors import DataError
from finetune.types import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["LoadingError", "Read", "read_sample"]

Read = Callable[[BinaryIO], "Image"]  # `decode` with its limits; travels to worker processes

_NOTE = "finetune-error: "  # opens the line that carries an error out of a worker


class LoadingError(DataError):
    """An image cannot be loaded in mid-run; the message names the file.

    Careful: DataLoader raises an error of a worker anew as `type(traceback)`. The sentence and the
    hint travel in a note of the traceback, and are read from it here.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        notes = re.findall(f"^{_NOTE}(.*)$", message, flags=re.MULTILINE)
        if notes:
            message, hint = json.loads(notes[-1])
        super().__init__(message, hint=hint)
        if not notes and get_worker_info() is not None:
            self.add_note(_NOTE + json.dumps([message, hint]))


def read_sample(sample: Sample, read: Read) -> "Image":
    """Decode the file of a sample.

    Raises:
        LoadingError: It cannot be read, or holds something else than the digest of the sample says.
    """
    try:
        with open_image_file(sample.path) as file:
            image = read(file)
            is_same = sample.digest in (None, digest_of(file))
    except UnreadableImageError as error:
        raise LoadingError(
            f"{sample.path} can no longer be read: {error.message}",
            hint="it was readable when the run began; put it back and run again",
        ) from error
    if not is_same:
        raise LoadingError(
            f"{sample.path} has changed since the run began",
            hint="put back what it was and go on with --resume, or start a new run",
        )
    return image
