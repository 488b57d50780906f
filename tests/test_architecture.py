"""The plan of the house holds: every file of the package keeps every rule of `house.py`.

Each rule is also shown a file that breaks it: a rule that finds nothing must not be blind.
"""

import subprocess
from collections.abc import Callable, Iterator

import house
import pytest
import sources

NUM_FILES_AT_LEAST = 80
TOP_LEVEL = {
    "LICENSE", "Makefile", "README.md", "constraints.txt", "docs", "finetune", "pyproject.toml",
    "recipes", "tests",
}  # fmt: skip

NESTED = "def f():\n for a in b:\n  for c in d:\n   if e:\n    while g: h()"
Rule = Callable[[sources.Source], Iterator[str]]
# Each rule, with the path and the text of a file that breaks it once.
RULES: list[tuple[Rule, str, str]] = [
    (house.imports_upwards, "finetune/data/x.py", "from finetune.model import network"),
    (house.imports_upwards, "finetune/report/x.py", "import finetune.serve.app"),
    (house.imports_upwards, "finetune/cli/x.py", "from finetune.classifier import load"),
    (house.imports_upwards, "finetune/classifier.py", "from finetune.cli import app"),
    (house.passes_by_a_door, "finetune/train/x.py", "import albumentations as A"),
    (house.passes_by_a_door, "finetune/recipe/resolve.py", "from ruamel.yaml import YAML"),
    (house.passes_by_a_door, "finetune/pipeline.py", "import typer"),
    (house.passes_by_a_door, "finetune/cli/run.py", "from rich.table import Table"),
    (house.passes_by_a_door, "finetune/train/stages.py", "import peft"),
    (house.passes_by_a_door, "finetune/report/page.py", "from matplotlib import figure"),
    (house.passes_by_a_door, "finetune/report/sections.py", "import jinja2"),
    (house.passes_by_a_door, "finetune/report/log.py", "from accelerate.tracking import x"),
    (house.passes_by_a_door, "finetune/model/bundle.py", "from timm import models"),
    (house.passes_by_a_door, "finetune/model/x.py", "def f(t: str) -> str:\n    t.create_model()"),
    (house.passes_by_a_door, "finetune/data/x.py", "from timm.data import create_transform"),
    (house.imports_without_the_remedy, "finetune/train/x.py", "from timm.optim import create"),
    (house.imports_without_the_remedy, "finetune/data/x.py", "def f():\n    import torchvision"),
    (house.is_heavy_to_import, "finetune/recipe/x.py", "import torch"),
    (house.is_heavy_to_import, "finetune/data/index.py", "import pandas as pd"),
    (house.is_heavy_to_import, "finetune/train/x.py", "from pydantic import BaseModel"),
    (house.uses_an_undeclared_library, "finetune/data/x.py", "import imageio"),
    (house.is_too_long, "finetune/data/x.py", "def f() -> None:\n" + "    f()\n" * 60),
    (house.is_too_long, "finetune/data/x.py", "\n" * 401),
    (house.takes_too_much, "finetune/data/x.py", "def f(a, b, c, d, e, f, g): ..."),
    (house.takes_too_much, "finetune/data/x.py", NESTED),
    (house.asserts, "finetune/data/x.py", "assert True"),
    (house.catches_everything, "finetune/data/x.py", "try:\n  f()\nexcept:\n  pass"),
    (house.catches_everything, "finetune/data/x.py", "try:\n  f()\nexcept (OSError, Exception): g"),
    (house.catches_everything, "finetune/data/x.py", "contextlib.suppress(BaseException)"),
    (house.lacks_annotations, "finetune/data/x.py", "def f(x) -> None: ..."),
    (house.lacks_annotations, "finetune/data/x.py", "def f(x: int): ..."),
    (house.lacks_documentation, "finetune/data/x.py", "'''Doc.'''\n__all__ = ['f']\ndef f(): ..."),
    (house.lacks_documentation, "finetune/data/x.py", "'''Doc.'''\ndef f(): ..."),
    (house.lacks_documentation, "finetune/data/x.py", "import os"),
    (house.exports_unknown_names, "finetune/data/x.py", "__all__ = ['gone']"),
    (house.leaves_work_undone, "finetune/data/x.py", "# FIX" + "ME later"),
]
DISTINCT = list(dict.fromkeys(rule for rule, _, _ in RULES))


def name_of(value: object) -> str:
    return getattr(value, "__name__", "") or ""


def test_every_file_of_the_package_is_inspected() -> None:
    assert len(sources.sources()) == len(sources.modules()) >= NUM_FILES_AT_LEAST


def test_every_room_stands_on_a_floor() -> None:
    assert {source.room for source in sources.sources()} <= house.FLOORS.keys()


@pytest.mark.parametrize("rule", DISTINCT, ids=name_of)
def test_no_file_breaks_the_rule(rule: Rule) -> None:
    found = [violation for source in sources.sources() for violation in rule(source)]
    assert not found, f"{rule.__doc__}\n" + "\n".join(found)


@pytest.mark.parametrize(("rule", "path", "text"), RULES, ids=name_of)
def test_the_rule_sees_a_file_that_breaks_it(rule: Rule, path: str, text: str) -> None:
    assert {violation.split(":")[0] for violation in rule(sources.Source(path, text))} == {path}


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert sources.import_cycle() == []


@pytest.mark.parametrize("face", ["finetune", "finetune.cli.app", "finetune.__main__"])
def test_importing_a_face_imports_nothing_heavy(face: str) -> None:
    libraries = sources.libraries_imported_by(face)
    assert not libraries.keys() & (house.HEAVY | {"pydantic"}), libraries


def test_loading_a_recipe_imports_nothing_heavy() -> None:
    libraries = sources.libraries_imported_by("finetune.recipe.load")
    assert {"pydantic", "ruamel"} <= libraries.keys()
    assert not libraries.keys() & house.HEAVY, libraries


def test_the_top_level_holds_what_the_plan_names() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=sources.ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    names = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL
