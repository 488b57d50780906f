"""The recipes that ship with the package are found beside it and inside it."""

import shutil
import subprocess
import sys
from pathlib import Path

import finetune
from finetune.recipe.builtin import find_recipe, list_recipes

PACKAGE = Path(finetune.__file__).parent


def test_recipes_are_listed_by_name_with_the_first_line_of_their_header():
    listed = list_recipes()
    assert [listing.name for listing in listed] == sorted(listing.name for listing in listed)
    [probe] = [listing for listing in listed if listing.name == "probe"]
    assert probe.summary.startswith("Logistic regression on frozen features")
    assert probe.path == find_recipe("probe")


def test_in_a_wheel_the_recipes_are_found_inside_the_package(tmp_path):
    inside = tmp_path / "finetune"
    shutil.copytree(PACKAGE, inside, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PACKAGE.parent / "recipes", inside / "recipes")
    code = "from finetune.recipe.builtin import find_recipe; print(find_recipe('default'))"
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(shown.stdout.strip()) == inside.resolve() / "recipes" / "default.yaml"
