"""How fast images are examined, beside how fast they are merely decoded."""

import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from finetune.components.pixels import MAX_PIXELS
from finetune.data.check import examine_images
from finetune.data.decode import decode
from finetune.data.near import find_near_duplicates
from finetune.data.thumbnail import make_thumbnail
from finetune.runtime.allocator import freed_memory_kept
from finetune.types import Index, Sample

__all__ = ["NUM_ROUNDS", "NUM_TIMED", "measure_speed"]

NUM_TIMED, NUM_ROUNDS = 10_000, 10
NUM_LARGE, NUM_DIFFERENT = 200, 20
LARGE_PX = (4000, 3000)
TINY = "cifar10-mini"
CLOCKS = ("wall", "processor")
STEPS = ("pillow", "decode", "look", "examine")

Clocked = tuple[float, float]  # seconds by the wall, and by the processor


def measure_speed(assets: Path) -> list[dict[str, Any]]:
    """Time decoding alone and the look at each image, in turn; and the search among them."""
    found = (assets / "datasets").rglob("*.jp*g")
    paths = sorted(path for path in found if path.is_file())
    tiny = [path for path in paths if path.is_relative_to(assets / "datasets" / TINY)]
    photos = sorted({*paths}.difference(tiny))
    thumbnails = np.stack(different_thumbnails(paths)[:NUM_TIMED])
    start = clocks()
    find_near_duplicates(thumbnails, workers=2)
    search = since(start)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            "photos of 224 to 512 px": (photos, NUM_TIMED),
            "pictures of 32 px": (tiny, NUM_TIMED),
            "photos of 12 megapixels": (make_large(photos, Path(folder)), NUM_LARGE),
        }
        for kind, (some, number) in kinds.items():
            rows += [{"images": kind, **row} for row in measure_kind(some, number)]
    seconds = dict(zip(CLOCKS, search, strict=True))
    compared = {"num_compared": len(thumbnails)}
    return [{**row, **compared, "search_seconds": seconds[row["clock"]]} for row in rows]


def measure_kind(paths: Sequence[Path], number: int) -> list[dict[str, Any]]:
    """Time so many images of a kind, the same ones again where there are fewer."""
    order = random.Random(0).sample(list(paths), len(paths))
    timed = (order * (number // len(order) + 1))[:number]
    size = number // NUM_ROUNDS
    steps: Mapping[str, Callable[[Sequence[Path]], Mapping[str, Clocked]]] = {
        "pillow": partial(time_decoding, "pillow", open_as_others_do),
        "decode": freed_memory_kept()(
            partial(time_decoding, "decode", partial(decode, max_pixels=MAX_PIXELS))
        ),
        "look": time_looking,
    }
    seconds: dict[str, list[Clocked]] = {name: [] for name in STEPS}
    for start in range(0, number, size):
        some = timed[start : start + size]
        steps["decode"](some)  # the files are then in memory for all
        for name in sorted(steps, reverse=bool(start // size % 2)):
            for part, clocked in steps[name](some).items():
                seconds[part].append(clocked)
    rows = []
    for place, clock in enumerate(CLOCKS):
        spent = {name: sum(pair[place] for pair in seconds[name]) for name in STEPS}
        rows.append(
            {
                "clock": clock,
                "num_images": number,
                **{f"{name}_seconds": value for name, value in spent.items()},
                "speed_of_pillow": spent["pillow"] / spent["look"],
                "speed_of_decode": spent["decode"] / spent["look"],
            }
        )
    return rows


def time_decoding(
    name: str, step: Callable[[Path], object], paths: Sequence[Path]
) -> Mapping[str, Clocked]:
    """Decode files by two threads, and do nothing else; no image is kept."""

    def decode_one(path: Path) -> None:
        step(path)

    start = clocks()
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(decode_one, paths):
            pass
    return {name: since(start)}


def open_as_others_do(path: Path) -> object:
    """Decode a file as the loader of torchvision's ImageFolder does."""
    with path.open("rb") as file:
        return Image.open(file).convert("RGB")


def time_looking(paths: Sequence[Path]) -> Mapping[str, Clocked]:
    """Decode, digest and shrink files by two threads; then search among them."""
    marks: list[Clocked] = []
    start = clocks()

    def note(done: int, total: int) -> None:
        if done == total:  # the search comes after the last image
            marks.append(since(start))

    examine_images(index_of(paths), max_pixels=MAX_PIXELS, workers=2, progress=note)
    return {"look": marks[-1], "examine": since(start)}


def make_large(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Write photos anew as a camera does: 12 megapixels, JPEG of quality 90."""
    made = []
    for number, path in enumerate(random.Random(0).sample(list(paths), NUM_DIFFERENT)):
        large = decode(path, max_pixels=MAX_PIXELS).resize(LARGE_PX)
        made.append(folder / f"{number}.jpg")
        large.save(made[-1], quality=90)
    return made


def index_of(paths: Sequence[Path]) -> Index:
    """Index files, each as often as it is named."""
    samples = tuple(Sample(path, str(number)) for number, path in enumerate(paths))
    return Index(Path("/"), samples, ())


def different_thumbnails(paths: Sequence[Path]) -> list[Any]:
    """Make thumbnails of photos and, since there are too few, of a quarter of each."""
    thumbnails = []
    for path in paths:
        image = decode(path, max_pixels=MAX_PIXELS)
        quarter = image.crop((0, 0, max(1, image.width // 2), max(1, image.height // 2)))
        thumbnails += [make_thumbnail(image), make_thumbnail(quarter)]
    return thumbnails


def clocks() -> Clocked:
    """Read the wall's clock and the processor's, in seconds."""
    return time.perf_counter(), time.process_time()


def since(start: Clocked) -> Clocked:
    """Give the seconds by both clocks since an earlier reading."""
    wall, processor = clocks()
    return wall - start[0], processor - start[1]
