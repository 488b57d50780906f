"""12-megapixel JPEGs at reduced scale against in full: seconds an image, and what answers change.

    FINETUNE_ASSETS=… python tests/bench/decode.py --out docs/benchmarks/decode.json

A head is fitted by `finetune run --recipe probe` on trash. The same photos are then seen as they
are, enlarged to 12 megapixels, and enlarged with noise in each pixel, which stands for the detail
that enlarging cannot give: its bytes must be read at every scale.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from PIL import Image
from torch.utils.data import Dataset

from finetune.components.augment import StandardAugment
from finetune.components.pixels import MAX_PIXELS
from finetune.components.preprocess import Preprocessing
from finetune.data.decode import decode
from finetune.data.loading import EvalImages, TrainImages
from finetune.model.bundle import Bundle, load_bundle
from finetune.model.inference import predict
from finetune.types import Sample

LIBRARIES = ("torch", "timm", "albumentations", "pillow")
BACKBONE = "mobilenetv2_100.in1k"
LONG, SHORT, QUALITY = 4000, 3000, 90
NOISE = 8.0  # of 255, standard deviation of each pixel and channel
SETTINGS = ("full", "reduced")


def main() -> int:
    """Fit the head, make the photos, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--timed", type=int, default=12, help="photos of each set that are timed")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    load_before = os.getloadavg()[0]
    assets = Path(os.environ["FINETUNE_ASSETS"]).resolve()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bundle = fitted(assets, folder / "run")
        rows = []
        for name, paths in photo_sets(assets, folder, given.per_class):
            timed = paths[:: max(1, len(paths) // given.timed)][: given.timed]
            rows.append(row_of(name, paths, timed, bundle, given.repeats))
            print(json.dumps(rows[-1]), flush=True)
    given.out.write_text(json.dumps(document(rows, given, load_before), indent=1) + "\n")
    return 0


def fitted(assets: Path, out: Path) -> Bundle:
    """Fit a head on trash by the probe."""
    command = [sys.executable, "-m", "finetune", "run", "--quiet", "--recipe", "probe"]
    command += ["--data", str(assets / "datasets" / "trash"), "--out", str(out)]
    command += ["--backbone", f"local-dir:{assets / 'weights' / BACKBONE}"]
    subprocess.run(command, check=True)
    return load_bundle(out)


def photo_sets(assets: Path, folder: Path, per_class: int) -> Iterator[tuple[str, list[Path]]]:
    """Give photos of the validation part: as they are, enlarged, enlarged with noise."""
    classes = sorted((assets / "datasets" / "trash" / "val").iterdir())
    plain = [path for place in classes for path in sorted(place.iterdir())[:per_class]]
    yield "384 x 512, as they are", plain
    yield "enlarged to 3000 x 4000", [enlarged(path, folder / "plain") for path in plain]
    noisy = [enlarged(path, folder / "noisy", noise=NOISE) for path in plain]
    yield "enlarged, with noise", noisy


def enlarged(path: Path, folder: Path, noise: float = 0.0) -> Path:
    """Write a photo at 12 megapixels, upright or lying as it is."""
    folder.mkdir(exist_ok=True)
    with Image.open(path) as image:
        size = (SHORT, LONG) if image.height > image.width else (LONG, SHORT)
        large = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    if noise:
        rng = np.random.default_rng(len(path.read_bytes()))
        pixels = np.asarray(large, dtype=np.float32)
        pixels = pixels + noise * rng.standard_normal(pixels.shape, dtype=np.float32)
        large = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    large.save(folder / path.name, quality=QUALITY)
    return folder / path.name


def row_of(
    name: str, paths: Sequence[Path], timed: Sequence[Path], bundle: Bundle, repeats: int
) -> dict[str, Any]:
    """Measure one set of photos."""
    by_setting = {setting: with_setting(bundle, setting) for setting in SETTINGS}
    probs = {key: predict(one, list(paths)).probs for key, one in by_setting.items()}
    difference = np.abs(probs["full"] - probs["reduced"])
    changed = probs["full"].argmax(axis=1) != probs["reduced"].argmax(axis=1)
    sizes = [{size_of(path, one.preprocessing) for one in by_setting.values()} for path in paths]
    row: dict[str, Any] = {
        "photos": name,
        "num_photos": len(paths),
        "num_reduced": sum(len(found) > 1 for found in sizes),
        "mean_mib": statistics.mean(path.stat().st_size for path in paths) / 2**20,
    }
    for view, make in (("evaluation", evaluated), ("training", trained)):
        sets = {key: make(timed, one.preprocessing) for key, one in by_setting.items()}
        seconds = time_in_turn(sets, repeats)
        row |= {f"{view}_{key}_seconds": statistics.median(seconds[key]) for key in SETTINGS}
        pairs = zip(seconds["full"], seconds["reduced"], strict=True)
        row[f"{view}_times_faster"] = statistics.median(full / less for full, less in pairs)
    return row | {
        "max_probability_difference": float(difference.max()),
        "mean_probability_difference": float(difference.mean()),
        "num_predictions_changed": int(changed.sum()),
    }


def with_setting(bundle: Bundle, setting: str) -> Bundle:
    """Give the same model, its files decoded in another way."""
    preprocessing = bundle.preprocessing.model_copy(update={"decode": setting})
    return replace(bundle, preprocessing=preprocessing)


def size_of(path: Path, preprocessing: Preprocessing) -> tuple[int, int]:
    """Tell the size that a file is decoded at for evaluation."""
    return decode(path, max_pixels=MAX_PIXELS, reduction=preprocessing.reduction).size


def evaluated(paths: Sequence[Path], preprocessing: Preprocessing) -> Dataset[Any]:
    """Give photos as evaluation sees them."""
    read = partial(decode, max_pixels=MAX_PIXELS, reduction=preprocessing.reduction)
    return EvalImages(samples_of(paths), preprocessing.transform(), ("photo",), read)


def trained(paths: Sequence[Path], preprocessing: Preprocessing) -> Dataset[Any]:
    """Give photos as training sees them, by the default augmentation."""
    augment, spec = StandardAugment(), preprocessing.spec
    read = partial(decode, max_pixels=MAX_PIXELS, reduction=augment.reduction(spec))
    return TrainImages(samples_of(paths), augment.build(spec), ("photo",), 0, read)


def samples_of(paths: Sequence[Path]) -> tuple[Sample, ...]:
    """Make samples of one class."""
    return tuple(Sample(path=path, name=path.name, label="photo") for path in paths)


def time_in_turn(sets: dict[str, Dataset[Any]], repeats: int) -> dict[str, list[float]]:
    """Time each photo in each set, one set after the other; give the seconds of each set."""
    seconds: dict[str, list[float]] = {key: [] for key in sets}
    num_photos = len(next(iter(sets.values())))  # type: ignore[arg-type]
    for repeat in range(repeats + 1):  # the first fills the caches and is left out
        for position in range(num_photos):
            for key in list(sets)[:: -1 if (repeat + position) % 2 else 1]:
                started = time.perf_counter()
                sets[key][position]
                if repeat:
                    seconds[key].append(time.perf_counter() - started)
    return seconds


def document(
    rows: list[dict[str, Any]], given: argparse.Namespace, load_before: float
) -> dict[str, Any]:
    """Say what was measured on what."""
    options = f"--per-class {given.per_class} --timed {given.timed} --repeats {given.repeats}"
    return {
        "title": "Decoding at reduced scale",
        "command": f"python tests/bench/decode.py {options} --out docs/benchmarks/decode.json",
        "commit": record.commit(),
        "device": record.device(),
        "versions": {**record.versions(*LIBRARIES), "libjpeg-turbo": libjpeg()},
        "backbone": BACKBONE,
        "load_average": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "notes": [
            f"photos: {given.per_class} of each class of trash val; enlarged ones are made by "
            f"bicubic enlarging to 12 megapixels, saved as JPEG of quality {QUALITY}; noise has a "
            f"standard deviation of {NOISE:g} of 255 in each pixel and channel",
            "num_reduced: photos that `data.decode: reduced` decodes smaller for evaluation; "
            "photos of 384 x 512 are too small for any scale, so nothing changes for them",
            "seconds: median an image from file to uint8 tensor, one thread, full and reduced in "
            f"turn, {given.timed} photos, {given.repeats} times each; training is the preset "
            "standard at 224 px; times_faster: median of the ratios of each pair",
            "probabilities: of one model, its head fitted by the probe on trash train decoded in "
            "full; mean over photos and classes",
            f"load average {load_before:.1f} before and {os.getloadavg()[0]:.1f} after, of which "
            "this is 1: where it is more than the cores, seconds are longer than on a quiet "
            "machine",
        ],
        "rows": rows,
    }


def libjpeg() -> str:
    """Give the version of the decoder behind Pillow."""
    from PIL import features

    return str(features.version("libjpeg_turbo"))


if __name__ == "__main__":
    sys.exit(main())
