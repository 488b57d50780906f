"""Train the starter backbone anew: `python -m finetune.demo.starter [FOLDER]`.

It learns letters drawn in a font of Pillow's and scikit-learn's digits zero to four, by the recipe
`starter.yaml`, from random weights. The same versions and machine give the same weights.
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from finetune.demo.digits import STARTER_DIGITS, write_digits
from finetune.demo.example import HERE, STARTER
from finetune.demo.glyphs import write_letters
from finetune.pipeline import Run, run
from finetune.recipe.load import load_recipe
from finetune.recipe.merge import with_arguments

__all__ = ["train_starter"]

_FILES = ("config.json", "model.safetensors")  # a timm local folder, and nothing else


def train_starter(folder: Path = STARTER) -> Run:
    """Train the starter backbone and put it into a folder, as timm reads it.

    Args:
        folder: Receives `config.json` and `model.safetensors`.
    """
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        write_letters(work / "photos")
        write_digits(work / "photos", STARTER_DIGITS)
        recipe = load_recipe(HERE / "starter.yaml")
        recipe = with_arguments(recipe, backbone=f"local-dir:{STARTER}", data=work / "photos")
        done = run(recipe, out=work / "run")
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            shutil.copyfile(work / "run" / "model" / name, folder / name)
    return done


if __name__ == "__main__":
    finished = train_starter(*map(Path, sys.argv[1:2]))
    print(finished.results["test"].summary())
