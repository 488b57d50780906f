"""Maps of where the model looked: for the photos that a person studies, small enough to embed.

They are made where the saved model and the photos are within reach, at the end of a run or when
its page is made anew; where they are not, the page says why. What is computed is `model/maps.py`;
here it is decided for which photos and classes, and where a map lies over its photo.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from finetune.components.pixels import MAX_PIXELS
from finetune.errors import FinetuneError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

    from finetune.components.preprocess import Preprocessing
    from finetune.model.bundle import Bundle
    from finetune.model.maps import MapSource
    from finetune.report.gallery import Gallery
    from finetune.report.material import Material
    from finetune.report.photos import Photo

Box: TypeAlias = tuple[float, float, float, float]  # left, top, width, height; shares of a photo

__all__ = ["ClassMap", "Looker", "Maps", "PhotoMaps"]

_BATCH = 16  # photos at a time
_MOST_CELLS = 28  # of a side: finer than any network of a few hundred pixels sees
# What a network was seen to raise where it does not fit its input, or no memory is left.
_FAILURES = (AttributeError, IndexError, KeyError, MemoryError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Where a photo speaks for a class.

    Attributes:
        name: The class.
        uri: `data:` address of a small grey PNG, the brighter the more.
        strongest: Where it is brightest, in words; empty where nothing speaks for the class.
    """

    name: str
    uri: str
    strongest: str


@dataclass(frozen=True, slots=True)
class PhotoMaps:
    """The maps of a photo.

    Attributes:
        box: Left, top, width and height of what the network saw, as shares of the photo's own.
        maps: One for each class.
    """

    box: Box
    maps: tuple[ClassMap, ...]


@dataclass(frozen=True, slots=True)
class Maps:
    """The maps of a page.

    Attributes:
        photos: By name.
        grid: Rows and columns of each map; None where there is none.
        reason: Why there is none; empty where there are some, or none were asked for.
    """

    photos: Mapping[str, PhotoMaps] = field(default_factory=dict)
    grid: tuple[int, int] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _View:
    """A photo that maps are wanted of: its file, its name, and the classes."""

    path: Path
    name: str
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Looker:
    """What makes the maps of a page, where model and photos are within reach.

    Attributes:
        material: What the files say.
        bundle: The model, which runs where it is; None takes that of the folder.
    """

    material: Material
    bundle: Bundle | None = None

    def look(self, gallery: Gallery, photos: Mapping[str, Photo], root: Path | None) -> Maps:
        """Make the maps of the photos that a person studies; a failure is a reason, no error.

        Args:
            gallery: Which these are.
            photos: By name; of what has no picture there is no map.
            root: The folder that names are relative to.
        """
        views = list(self._views(gallery, photos, root)) if root is not None else []
        if not views or self.material.maps == "none":
            return Maps()
        try:
            return self._make(views)
        except FinetuneError as error:
            return Maps(reason=error.message)
        except _FAILURES as error:
            first_line = (str(error) or type(error).__name__).splitlines()[0]
            return Maps(reason=f"the network could not be followed: {first_line}")

    def _views(self, gallery: Gallery, photos: Mapping[str, Photo], root: Path) -> Iterator[_View]:
        """Give the photos, each with the predicted class and that which it is to be told from."""
        answers = self.material.main.answers
        for place in gallery.studied:
            name, likeliest = answers.names[place], answers.likeliest[place].tolist()
            label = int(answers.labels[place])
            other = likeliest[1:2] if label in (-1, likeliest[0]) else [label]
            if photos[name].uri is not None:
                classes = tuple(answers.classes[one] for one in (likeliest[0], *other))
                yield _View(root / PurePosixPath(name), name, classes)

    def _make(self, views: Sequence[_View]) -> Maps:
        """Load what is needed, and make the maps."""
        from finetune.model.bundle import load_bundle
        from finetune.runtime.device import choose_device

        bundle = self.bundle
        if bundle is not None:
            device = str(next(bundle.network.parameters()).device)
        else:
            folder = self.material.folder / "model"
            if not (folder / "finetune.json").is_file():
                return Maps(reason="no saved model stands beside this page")
            bundle, device = load_bundle(folder), choose_device("auto").value
        if set(self.material.classes) != set(bundle.classes):
            return Maps(reason="the saved model has other classes than the answers of this page")
        return _make_maps(views, bundle, device)


def _make_maps(views: Sequence[_View], bundle: Bundle, device: str) -> Maps:
    """Make the maps of photos, some at a time."""
    from finetune.model.inference import ready
    from finetune.model.maps import compute_maps, find_map_source

    index = {name: place for place, name in enumerate(bundle.classes)}
    network = ready(bundle.network, device)
    source: MapSource | None = None
    photos: dict[str, PhotoMaps] = {}
    for part, batch, boxes in _batches(views, bundle.preprocessing):
        images = bundle.preprocessing.normalize(batch.to(device))
        source = source or find_map_source(network, images)
        if source is None:
            return Maps(reason="this network has no feature map whose places its answer depends on")
        found = compute_maps(network, images, _indices(part, index), source)
        for view, box, values in zip(part, boxes, found, strict=True):
            photos[view.name] = _photo_maps(view, box, values)
    return Maps(photos, source.grid if source else None)


def _batches(
    views: Sequence[_View], preprocessing: Preprocessing
) -> Iterator[tuple[Sequence[_View], torch.Tensor, list[Box]]]:
    """Read photos as the network sees them: uint8 (B, C, H, W), with what it sees of each."""
    import torch

    transform = preprocessing.transform()
    for start in range(0, len(views), _BATCH):
        part, images, boxes = [], [], []
        for view in views[start : start + _BATCH]:
            image = _read(view.path, preprocessing)
            if image is not None:
                part.append(view)
                images.append(transform(image))
                boxes.append(preprocessing.seen(*image.size))
        if part:
            yield part, torch.stack(images), boxes


def _read(path: Path, preprocessing: Preprocessing) -> Image | None:
    """Read a photo as the network takes it; None where it cannot, as one of three bands of four."""
    from finetune.data.decode import UnreadableImageError, decode

    # A place of a map is many pixels wide: a photo decoded at a reduced scale shows it as well.
    reduction = preprocessing.model_copy(update={"decode": "reduced"}).reduction
    channels = preprocessing.channels
    try:
        return decode(path, max_pixels=MAX_PIXELS, channels=channels, reduction=reduction)
    except UnreadableImageError:
        return None


def _indices(part: Sequence[_View], index: Mapping[str, int]) -> torch.Tensor:
    """Give the classes of some photos, as many of each, as indices (B, T)."""
    import torch

    return torch.tensor([[index[name] for name in view.classes] for view in part])


def _photo_maps(view: _View, box: Box, values: NDArray[np.float32]) -> PhotoMaps:
    """Put together the maps (T, rows, columns) of a photo."""
    maps = zip(view.classes, values, strict=True)
    return PhotoMaps(box, tuple(_class_map(name, cells, box) for name, cells in maps))


def _class_map(name: str, cells: NDArray[np.float32], box: Box) -> ClassMap:
    """Write a map as a small grey PNG."""
    from PIL import Image
    from PIL.Image import Resampling

    picture = Image.fromarray((cells * 255).round().astype("uint8"))
    picture.thumbnail((_MOST_CELLS, _MOST_CELLS), Resampling.BOX)
    stream = BytesIO()
    picture.save(stream, "PNG")
    uri = "data:image/png;base64," + b64encode(stream.getvalue()).decode("ascii")
    return ClassMap(name, uri, _strongest(cells, box) if cells.any() else "")


def _strongest(cells: NDArray[np.float32], box: Box) -> str:
    """Say in words where in the photo a map is brightest."""
    rows, columns = cells.shape
    row, column = divmod(int(cells.argmax()), columns)
    left, top, width, height = box
    across = _third(left + width * (column + 0.5) / columns, ("left", "", "right"))
    down = _third(top + height * (row + 0.5) / rows, ("upper", "", "lower"))
    if across and down:
        return f"in the {down} {across}"
    if down:
        return f"in the {down} middle"
    return f"on the {across}" if across else "in the middle"


def _third(share: float, words: tuple[str, str, str]) -> str:
    """Choose a word by the third of the photo that a place lies in."""
    return words[min(2, max(0, int(3 * share)))]
