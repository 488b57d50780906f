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

from finetune.data.check import examine_images
from finetune.data.decode import decode
from finetune.data.near import find_near_duplicates
from finetune.data.thumbnail import make_thumbnail
from finetune.types import Index, Sample

__all__ = ["NUM_ROUNDS", "NUM_TIMED", "measure_speed"]

NUM_TIMED, NUM_ROUNDS = 10_000, 10
NUM_LARGE, NUM_DIFFERENT = 200, 20
LARGE_PX = (4000, 3000)
TINY = "cifar10-mini"
CLOCKS = ("wall", "processor")
LIMIT = 178_956_970


def measure_speed(assets: Path) -> list[dict[str, Any]]:
    """Time decoding alone and the whole look at each image, in turn; and the search."""
    found = (assets / "datasets").rglob("*.jp*g")
    paths = sorted(path for path in found if path.is_file())
    tiny = [path for path in paths if path.is_relative_to(assets / "datasets" / TINY)]
    photos = sorted({*paths}.difference(tiny))
    thumbnails = np.stack(different_thumbnails(paths)[:NUM_TIMED])
    search = clocked(partial(find_near_duplicates, thumbnails, workers=2))
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
    seconds: dict[str, list[tuple[float, float]]] = {"decode": [], "examine": []}
    for start in range(0, number, size):
        some = timed[start : start + size]
        with ThreadPoolExecutor(2) as pool:
            steps: Mapping[str, Callable[[], object]] = {
                "decode": partial(decode_all, pool, some),
                "examine": partial(examine_images, index_of(some), max_pixels=LIMIT, workers=2),
            }
            decode_all(pool, some)  # the files are then in memory for both
            for name in sorted(steps, reverse=bool(start // size % 2)):
                seconds[name].append(clocked(steps[name]))
    rows = []
    for place, clock in enumerate(CLOCKS):
        decoded, examined = (
            sum(pair[place] for pair in seconds[name]) for name in ("decode", "examine")
        )
        rows.append(
            {
                "clock": clock,
                "num_images": number,
                "decode_seconds": decoded,
                "examine_seconds": examined,
                "share_of_decoding_speed": decoded / examined,
            }
        )
    return rows


def make_large(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Write photos anew as a camera does: 12 megapixels, JPEG of quality 90."""
    made = []
    for number, path in enumerate(random.Random(0).sample(list(paths), NUM_DIFFERENT)):
        large = decode(path, max_pixels=LIMIT).resize(LARGE_PX)
        made.append(folder / f"{number}.jpg")
        large.save(made[-1], quality=90)
    return made


def decode_all(pool: ThreadPoolExecutor, paths: Sequence[Path]) -> None:
    """Decode files in full, and do nothing else."""
    for _ in pool.map(partial(decode, max_pixels=LIMIT), paths):
        pass


def index_of(paths: Sequence[Path]) -> Index:
    """Index files, each as often as it is named."""
    samples = tuple(Sample(path, str(number)) for number, path in enumerate(paths))
    return Index(Path("/"), samples, ())


def different_thumbnails(paths: Sequence[Path]) -> list[Any]:
    """Make thumbnails of photos and, since there are too few, of a quarter of each."""
    thumbnails = []
    for path in paths:
        image = decode(path, max_pixels=LIMIT)
        quarter = image.crop((0, 0, max(1, image.width // 2), max(1, image.height // 2)))
        thumbnails += [make_thumbnail(image), make_thumbnail(quarter)]
    return thumbnails


def clocked(step: Callable[[], object]) -> tuple[float, float]:
    """Give the seconds by the wall and by the processor that a step takes."""
    wall, processor = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - processor
