"""The documentation says what the code does: blocks run, commands exist, generated parts are fresh.

A Python block is preceded by a comment that says how it is tested: `run` in an empty folder beside
`photos/`, `run: fitted` after a run on them, or `no run` with the reason.
"""

import ast
import contextlib
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import generate
import pytest

ROOT = generate.ROOT
FENCE = re.compile(
    r"(?:<!-- (?P<mark>(?:no )?run[^\n]*?) -->\n)?^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
LINK = re.compile(r"\]\((?!https?:)(?P<target>[^)#\s]+)(?:#[^)]*)?\)")
# A figure of quality or speed: needs its JSON, so it stands in a generated part.
FIGURE = re.compile(r"\d+(?:\.\d+)? ?(?:%|s\b|seconds|minutes|images/s|points)|\b0\.\d{2,}")
RUN = "runs/photos-efficientnet_b0-001"
TUTORIAL_RUN = "runs/photos-mobilenetv2_100-001"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    mark: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def find_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    return [
        Block(
            name,
            text.count("\n", 0, match.start("text")) + 1,
            match["language"],
            match["text"],
            match["mark"],
        )
        for match in FENCE.finditer(text)
    ]


PAGES = generate.pages()
BLOCKS = [block for page in PAGES for block in find_blocks(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
FRESH = [block for block in PYTHON if block.mark == "run"]
FITTED = [block for block in PYTHON if block.mark == "run: fitted"]
YAML = [block for block in BLOCKS if block.language == "yaml"]
LINES = [
    (f"{block}: {line}", line)
    for block in BLOCKS
    if block.language == "bash"
    for line in block.text.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]
COMMANDS = [(where, line) for where, line in LINES if line.startswith("finetune ")]
OTHERS = [(where, line) for where, line in LINES if not line.startswith("finetune ")]


def test_the_pages_and_blocks_are_found() -> None:
    assert len(PAGES) >= 30
    assert len(COMMANDS) >= 20
    assert len(FRESH) >= 7
    assert len(FITTED) >= 3
    assert len(YAML) >= 3


def test_every_block_names_a_language_that_is_tested_or_output() -> None:
    known = {"python", "bash", "yaml", "text", "json", "{toctree}"}
    assert [str(block) for block in BLOCKS if block.language not in known] == []


def test_every_python_block_says_how_it_is_tested() -> None:
    kinds = re.compile(r"run|run: fitted|no run: .{10,}")
    assert [str(block) for block in PYTHON if not kinds.fullmatch(block.mark or "")] == []


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_python_block_imports_names_that_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("finetune"):
            module = importlib.import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("block", YAML, ids=str)
def test_a_yaml_block_is_a_recipe(block: Block) -> None:
    from finetune.recipe.load import parse_recipe

    assert parse_recipe(block.text, source=str(block)).stages


@pytest.mark.parametrize(("where", "line"), COMMANDS, ids=lambda value: str(value)[:80])
def test_a_command_line_is_one_that_the_program_takes(where: str, line: str) -> None:
    import typer

    from finetune.cli.app import app

    command, arguments = typer.main.get_command(app), shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        assert arguments[0] in command.commands, where
        command, arguments = command.commands[arguments[0]], arguments[1:]
    with contextlib.suppress(typer.Exit):  # --help and --version end while they are parsed
        assert command.make_context("finetune", arguments).params is not None, where


def test_every_change_of_a_recipe_on_a_command_line_is_one_that_it_takes() -> None:
    from finetune.recipe.load import load_recipe

    words = [shlex.split(line, comments=True) for _, line in COMMANDS]
    changes = [after for row in words for word, after in pairwise(row) if word == "--set"]
    assert len(changes) >= 3
    assert load_recipe("default", overrides=changes).name == "default"


@pytest.mark.parametrize(("where", "line"), OTHERS, ids=lambda value: str(value)[:80])
def test_any_other_shell_line_is_of_a_known_kind(where: str, line: str) -> None:
    from finetune.errors import DISTRIBUTION

    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = {f"make {target}" for target in targets} | {f"pip install {DISTRIBUTION}"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    known |= {f'pip install "{DISTRIBUTION}[{extra}]"' for extra in extras}
    script = re.match(r"python (tests/(?:bench|faults)/\w+\.py)", line)
    measured = script is not None and (ROOT / script[1]).is_file()
    assert line in known or line.startswith("cp ") or measured, where


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_generated_parts_of_a_page_are_fresh(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert generate.render(text) == text, "stale: make docs"


def test_every_generated_part_has_a_page() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert set(re.findall(r"<!-- generated: (\S+) -->", text)) == generate.PARTS.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    targets = [match["target"] for match in LINK.finditer(page.read_text(encoding="utf-8"))]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_command_has_its_section() -> None:
    import typer

    from finetune.cli.app import app

    reference = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    names = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert len(names) >= 6
    assert [name for name in names if f"\n## `finetune {name}`\n" not in reference] == []


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") < 150


def test_the_readme_has_no_figure_that_is_not_generated() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    by_hand = re.sub(
        r"<!-- generated:.*?<!-- end of generated -->", "", text, flags=re.DOTALL
    ).replace("95 % intervals", "")
    assert FIGURE.findall(by_hand) == []


def test_decisions_are_short_and_listed() -> None:
    folder = ROOT / "docs/adr"
    records = sorted(folder.glob("[0-9]*.md"))
    index = (folder / "index.md").read_text(encoding="utf-8")
    headings = ["## Context", "## Decision", "## Alternatives and why not", "## How we would know"]
    assert len(records) >= 6
    for record in records:
        text = record.read_text(encoding="utf-8")
        assert text.count("\n") <= 60, record.name
        assert [heading for heading in headings if f"\n{heading}" not in text] == [], record.name
        assert f"({record.name})" in index


def test_the_table_of_results_shows_what_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {
        "data": "birds", "seed": 0, "split": "test", "num_classes": 3, "num_train": 90,
        "num_samples": 40, "macro_f1": 0.8, "seconds": 120.0,
    }  # fmt: skip
    rows = [
        {**shared, "recipe": "default", "accuracy": 0.875, "accuracy_interval": [0.75, 0.95]},
        {**shared, "recipe": "probe", "accuracy": 0.8, "accuracy_interval": [0.7, 0.9]},
        {**shared, "recipe": "default", "seed": 1, "accuracy": 0.5, "accuracy_interval": [0, 1]},
    ]
    recorded = {"command": "python tests/bench/default.py", "device": "2 cores", "rows": rows}
    recorded["backbone"] = "resnet18"
    (tmp_path / "default.json").write_text(json.dumps(recorded))
    monkeypatch.setattr(generate, "RESULTS", tmp_path / "default.json")
    assert generate.results().splitlines()[2:] == [
        "| birds, 3 classes | 90 | 40 test | 87.5 % [75.0, 95.0] | 0.800 | 80.0 % |  | 2.0 min |",
        "",
        "resnet18; 2 cores; one run each, seconds beside other work:",
        "",
        "```bash",
        "python tests/bench/default.py",
        "```",
    ]


@pytest.fixture(scope="module")
def workplace(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder such as a reader has: photos/ by class, photo.jpg, and one finished run."""
    from PIL import Image

    from finetune import Classifier

    folder = tmp_path_factory.mktemp("reader")
    files = sorted(path for path in tiny_folder.rglob("*") if path.is_file())
    for number, file in enumerate(files):
        target = folder / "photos" / file.parent.name / f"{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).convert("RGB").save(target)
    Image.open(files[0]).convert("RGB").save(folder / "photo.jpg")
    Classifier(starter(), recipe="probe", out=folder / RUN).fit(folder / "photos")
    shutil.copytree(folder / RUN, folder / TUTORIAL_RUN)
    return folder


def starter() -> str:
    """Name the backbone that ships with the package, so that blocks run without a network."""
    import finetune

    (config,) = Path(finetune.__file__).parent.glob("demo/**/config.json")
    return f"local-dir:{config.parent}"


@pytest.mark.slow
@pytest.mark.parametrize("block", FRESH + FITTED, ids=str)
def test_a_python_block_runs(
    block: Block, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    text = block.text.replace('"efficientnet_b0"', repr(starter()))
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(text, str(block), "exec"), names)
    assert len(names) > 2


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-E", "-q", "-d", tmp_path / "d", "docs", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stderr) == (0, "")
    assert (tmp_path / "index.html").is_file()
