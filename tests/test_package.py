"""What is built is what is needed: the wheel holds the package, its recipes and the starter."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {"default", "probe", "gradual", "vit", "small-data", "imbalanced", "from-scratch"}
BIN = "Scripts" if os.name == "nt" else "bin"


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program that must succeed; give what it wrote on stdout."""
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder)
    run(*build, ROOT, cwd=folder)
    (built,) = folder.glob("finetune_vision-*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel; dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    purelib = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (purelib / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / BIN / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    return folder / BIN


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_its_type_marker(names: list[str]) -> None:
    modules = [path.relative_to(ROOT).as_posix() for path in (ROOT / "finetune").rglob("*.py")]
    assert len(modules) >= 50
    assert set(modules) <= set(names)
    assert "finetune/py.typed" in names


@pytest.mark.slow
def test_the_wheel_holds_the_recipes(names: list[str]) -> None:
    found = {Path(name).stem for name in names if re.match(r"finetune/recipes/[^/]+\.yaml$", name)}
    assert found >= RECIPES


@pytest.mark.slow
def test_the_wheel_holds_the_templates_of_the_report(names: list[str]) -> None:
    folder = ROOT / "finetune/report/templates"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 12
    assert {path.relative_to(ROOT).as_posix() for path in files} <= set(names)


@pytest.mark.slow
def test_the_wheel_holds_the_starter_weights_within_two_megabytes(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        weights = [
            entry
            for entry in archive.infolist()
            if re.match(r"finetune/demo/.*\.safetensors$", entry.filename)
        ]
    assert len(weights) == 1
    assert 0 < weights[0].file_size <= 2_000_000


@pytest.mark.slow
def test_the_wheel_holds_nothing_else(names: list[str]) -> None:
    foreign = re.compile(r"^(?!finetune/|finetune_vision-[\d.]+\.dist-info/)|/__pycache__/|\.pyc$")
    assert [name for name in names if foreign.search(name)] == []


@pytest.mark.slow
def test_the_installed_wheel_is_the_one_that_runs(clean: Path) -> None:
    where = run(clean / "python", "-c", "import finetune; print(finetune.__file__)", cwd=clean)
    assert Path(where.strip()).is_relative_to(clean.parent)


@pytest.mark.slow
def test_the_installed_command_tells_its_version(clean: Path) -> None:
    version = re.search(r'"(.+)"', (ROOT / "finetune/version.py").read_text().splitlines()[-1])
    assert version is not None
    assert run(clean / "finetune", "--version", cwd=clean) == f"finetune {version[1]}\n"


@pytest.mark.slow
def test_the_installed_command_finds_the_recipes(clean: Path) -> None:
    listed = run(clean / "finetune", "recipes", "ls", "--json", cwd=clean)
    assert [name for name in RECIPES if f'"{name}"' not in listed] == []


@pytest.mark.slow
def test_the_installed_recipe_is_read_from_the_package(clean: Path) -> None:
    code = "from finetune.recipe.builtin import find_recipe; print(find_recipe('default'))"
    path = Path(run(clean / "python", "-c", code, cwd=clean).strip())
    assert path.is_relative_to(clean.parent)
    assert path.read_text() == (ROOT / "recipes/default.yaml").read_text()


@pytest.mark.slow
def test_an_editable_installation_reads_the_recipes_of_the_checkout(tmp_path: Path) -> None:
    code = "from finetune.recipe.builtin import find_recipe; print(find_recipe('default'))"
    path = run(sys.executable, "-c", code, cwd=tmp_path).strip()
    assert Path(path) == ROOT / "recipes/default.yaml"


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins() -> dict[str, Version]:
    rows = [
        row.split("==")
        for row in (ROOT / "constraints.txt").read_text().splitlines()
        if row and not row.startswith("#")
    ]
    return {name: Version(version) for name, version in rows}


def declared() -> list[Requirement]:
    extras = project()["optional-dependencies"]
    assert isinstance(extras, dict)
    rows = [*project()["dependencies"], *(row for rows in extras.values() for row in rows)]  # type: ignore[misc]
    return [Requirement(row) for row in rows]


def test_every_declared_dependency_is_pinned_within_its_range() -> None:
    exact = pins()
    assert len(declared()) >= 25
    for requirement in declared():
        version = exact[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, requirement


def test_the_pins_are_exact_sorted_and_of_no_single_build() -> None:
    names = list(pins())
    assert len(names) >= 80
    assert names == sorted(names)
    assert [name for name, version in pins().items() if version.local] == []


def test_the_distribution_has_one_name() -> None:
    from finetune.errors import DISTRIBUTION

    assert project()["name"] == DISTRIBUTION
