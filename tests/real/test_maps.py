"""Maps of a real model point at what the class is: one texture in a quarter, another around it."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.model.inference import ready
from finetune.model.maps import compute_maps, find_map_source
from finetune.pipeline import run
from finetune.recipe.load import load_recipe
from finetune.recipe.merge import with_arguments

pytestmark = pytest.mark.real

CLASSES = ("banded", "bubbly", "chequered", "cobwebbed")  # those that the probe tells apart best
TILE_PX = 112  # a quarter of the network's input


def tile(path: Path) -> Image.Image:
    """The middle of a photo, as large as a quarter."""
    image = Image.open(path).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((TILE_PX, TILE_PX))


def test_a_map_points_at_the_quarter_that_is_of_the_class(assets: Path, tmp_path: Path) -> None:
    data = assets / "datasets/textures"
    network = f"local-dir:{assets}/weights/mobilenetv2_100.in1k"
    recipe = with_arguments(load_recipe("probe"), backbone=network, data=data, device="cpu")
    bundle = run(recipe, out=tmp_path / "run").bundle
    tiles = {name: tile(sorted((data / "val" / name).iterdir())[0]) for name in CLASSES}
    images, corners, wanted = [], [], []
    for number, (inside, around) in enumerate(permutations(CLASSES, 2)):
        whole = Image.new("RGB", (2 * TILE_PX, 2 * TILE_PX))
        for corner in range(4):
            place = (TILE_PX * (corner % 2), TILE_PX * (corner // 2))
            whole.paste(tiles[inside if corner == number % 4 else around], place)
        images.append(torch.from_numpy(np.array(whole)).permute(2, 0, 1))
        corners.append(number % 4)
        wanted.append(bundle.classes.index(inside))
    batch = bundle.preprocessing.normalize(torch.stack(images))
    prepared = ready(bundle.network, "cpu")
    source = find_map_source(prepared, batch)
    assert source is not None
    maps = compute_maps(prepared, batch, torch.tensor(wanted)[:, None], source)[:, 0]
    doubled = maps.repeat(2, 1).repeat(2, 2)  # 7 by 7 places, whose middle belongs to two quarters
    quarters = doubled.reshape(len(maps), 2, 7, 2, 7).sum((2, 4)).reshape(len(maps), 4)
    shares = quarters[range(len(maps)), corners] / quarters.sum(1)
    assert len(shares) == 12
    assert (quarters.argmax(1) == corners).mean() >= 0.9  # 12 of 12 when written; chance is 0.25
    assert shares.mean() > 0.7  # 0.84 when written; chance is 0.25
