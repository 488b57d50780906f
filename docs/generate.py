"""Write the generated parts of the documentation: `python docs/generate.py`.

A page holds a generated part between two comments that name it; the rest is written by hand. The
parts come from the code: commands from their own options, the recipe from its schema, errors from
their tree, figures from the JSON of the benchmarks. Pages are committed; a test finds a stale one.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["PARTS", "main", "pages", "render"]

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "docs/benchmarks/demo.json"
FAULTS = tuple(ROOT / f"docs/benchmarks/{name}.json" for name in ("kills", "faults", "fuzz"))
CHECK = ROOT / "docs/benchmarks/check.json"
BACKBONES = ROOT / "docs/benchmarks/backbones.json"
TUNING = ROOT / "docs/benchmarks/tuning.json"
SPEED = ROOT / "docs/benchmarks/speed.json"
SPEED_BEFORE = ROOT / "docs/benchmarks/speed_before.json"
RESULTS = ROOT / "docs/benchmarks/default.json"  # of the table in the README
_PART = re.compile(
    r"(?P<open><!-- generated: (?P<name>\S+) -->\n).*?(?P<close><!-- end of generated -->)",
    re.DOTALL,
)


def main() -> None:
    """Rewrite every page whose generated parts are stale, and name it."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        fresh = render(text)
        if fresh != text:
            page.write_text(fresh, encoding="utf-8")
            print(f"{page.relative_to(ROOT)} rewritten")


def pages() -> list[Path]:
    """List the pages of the documentation, the README among them."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def render(text: str) -> str:
    """Give the text of a page with its generated parts made anew."""

    def replace(match: re.Match[str]) -> str:
        made = PARTS[match["name"]]().strip()
        return f"{match['open']}\n{made}\n\n{match['close']}"

    return _PART.sub(replace, text)


def commands() -> str:
    """Describe every command with its arguments and options."""
    import typer

    from finetune.cli.app import app

    return "\n\n".join(_describe(typer.main.get_command(app), "finetune"))


def errors() -> str:
    """Describe the tree of errors, root first."""
    from finetune.errors import FinetuneError

    rows = ["| error | exit code | when |", "|---|---|---|"]
    for depth, error in _tree(FinetuneError, 0):
        also = [base.__name__ for base in error.__bases__ if not issubclass(base, FinetuneError)]
        kinds = f" ({', '.join(also)})" if also and depth else ""
        name = f"{'&emsp;' * depth}`{error.__name__}`{kinds}"
        rows.append(f"| {name} | {error.exit_code} | {_first_line(error)} |")
    return "\n".join(rows)


def doctor() -> str:
    """List what `finetune doctor` looks at."""
    from finetune.doctor.examine import CHECKS

    rows = ["| check | looks at |", "|---|---|"]
    for name, check in CHECKS.items():
        rows.append(f"| `{name}` | {_first_line(check).removeprefix('Check ').rstrip('.')} |")
    return "\n".join(rows)


def recipe() -> str:
    """Describe every value of a recipe."""
    from finetune.recipe.reference import markdown_reference

    text: str = markdown_reference()
    return text


def classifier() -> str:
    """List the public methods of `Classifier` with their signatures."""
    from finetune import Classifier

    rows = ["| method | gives |", "|---|---|"]
    for name, member in vars(Classifier).items():
        function = getattr(member, "__func__", member)
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        names = [
            ("*" if one.kind is one.VAR_POSITIONAL else "") + one.name
            for one in inspect.signature(function).parameters.values()
            if one.name not in ("self", "cls")
        ]
        rows.append(f"| `{name}({', '.join(names)})` | {_first_line(function)} |")
    return "\n".join(rows)


def results() -> str:
    """Show the default recipe on every set, beside its probe and training from scratch."""
    if not RESULTS.is_file():
        return "No figures are recorded yet."
    recorded = json.loads(RESULTS.read_text(encoding="utf-8"))
    seed = min(row["seed"] for row in recorded["rows"])
    by_recipe = {
        (row["data"], row["recipe"]): row for row in recorded["rows"] if row["seed"] == seed
    }
    names = ["photos", "trained on", "measured on", "accuracy (95 %)", "macro-F1"]
    names += ["probe", "from scratch", "time"]
    lines = _table_head(names)
    for (data, name), row in by_recipe.items():
        if name != "default":
            continue
        probe = by_recipe.get((data, "probe"), {}).get("accuracy")
        if probe is None and row["split"] == "val":
            probe = row.get("probe_val_accuracy")  # of the probe that the same run began with
        scratch = by_recipe.get((data, "from-scratch"), {}).get("accuracy")
        cells = [
            f"{data}, {row['num_classes']} classes",
            str(row["num_train"]),
            f"{row['num_samples']} {row['split']}",
            _accuracy(row),
            f"{row['macro_f1']:.3f}",
            *("" if other is None else _percent(other) for other in (probe, scratch)),
            _duration(row["seconds"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    made = f"{_origin(recorded)}; one run each, seconds beside other work:"
    return "\n".join([*lines, "", made, "", *_command(recorded)])


def demo() -> str:
    """Show both networks of the embedded example."""
    if not DEMO.is_file():
        return "No figures are recorded yet."
    recorded = json.loads(DEMO.read_text(encoding="utf-8"))
    rows = recorded["rows"]
    lines = _table_head(["network", "accuracy (95 %)", "macro-F1", "time"])
    lines += [
        f"| {row['network']} | {_accuracy(row)} | {row['macro_f1']:.3f} | "
        f"{_duration(row['seconds'])} |"
        for row in rows
    ]
    told = (
        f"On {rows[0]['num_samples']} test photos of the digits five to nine. Each network was "
        "trained on five other photos of each digit:"
    )
    return "\n".join([told, "", *lines])


def benchmarks() -> str:
    """Show every file of figures: what was run, on what, and all of its rows."""
    files = sorted((ROOT / "docs/benchmarks").glob("*.json"))
    own = (BACKBONES, CHECK, SPEED, SPEED_BEFORE, TUNING, *FAULTS)  # have a page of their own
    return "\n\n".join(_benchmark(file) for file in files if file not in own)


def faults() -> str:
    """Show what was done to runs and to files, and what came of it."""
    return "\n\n".join(_benchmark(file) for file in FAULTS if file.is_file())


def check() -> str:
    """Show what the check finds of planted faults in each set, and what it costs."""
    if not CHECK.is_file():
        return "No figures are recorded yet."
    recorded = json.loads(CHECK.read_text(encoding="utf-8"))
    names = ["photos", "planted", "finding", "number", "found", "recall (95 %)", "others"]
    lines = _table_head([*names, "precision", "precision of the first"])
    for row in recorded["rows"]:
        facts = (row["data"], row["planted"], f"`{row['finding']}`", row["num_planted"] or "")
        figures = ("recall", "num_others", "precision", "precision_of_first")
        cells = [*facts, row["num_found"] if row["num_planted"] else ""]
        lines.append(f"| {' | '.join([*map(str, cells), *(_cell(row, one) for one in figures)])} |")
    made = f"{recorded['device']}; commit `{recorded['commit']}`; raw figures: `{CHECK.name}`."
    notes = [f"- {note}" for note in recorded["notes"]]
    speed = _table_head(list(recorded["speed"][0])) if recorded["speed"] else []
    speed += [f"| {' | '.join(_cell(row, one) for one in row)} |" for row in recorded["speed"]]
    return "\n".join([*_command(recorded), "", made, "", *notes, "", *lines, "", *speed])


def backbones() -> str:
    """Show what was found of every architecture, and each exception by name and reason."""
    if not BACKBONES.is_file():
        return "No figures are recorded yet."
    recorded = json.loads(BACKBONES.read_text(encoding="utf-8"))
    rows, candidates = recorded["rows"], recorded["num_candidates"]
    lines = []
    for tier, meaning in (("shape", "on the meta device"), ("step", "one training step")):
        taken = [row for row in rows if row[tier] is not None]
        passed = sum(row[tier] == "pass" for row in taken)
        lines.append(
            f"- **{tier}**, {meaning}: {passed:,} of {candidates[tier]:,} pass, "
            f"{len(taken) - passed} do not, {candidates[tier] - len(taken)} were not taken; "
            f"{recorded['seconds'][tier] / 60:.0f} core-minutes"
        )
    lines.append(_split_line(recorded))
    failed = [(row, tier) for row in rows for tier in ("shape", "step")]
    lines += ["", "Exceptions:", ""]
    exceptions = [
        f"- `{row['name']}`, {tier}: {row[tier]}"
        for row, tier in failed
        if row[tier] not in ("pass", None)
    ]
    lines += [*(exceptions or ["- none"]), ""]
    lines += _table_head(
        ["name", "params", "family", "head", "groups", "blocks", "grouped by", "shape", "step"]
    )
    lines += [f"| {' | '.join(_backbone_cells(row))} |" for row in rows]
    versions = ", ".join(f"{name} {value}" for name, value in recorded["versions"].items())
    return "\n".join([f"With {versions}; {recorded['device']}:", "", *lines])


def _split_line(recorded: dict[str, Any]) -> str:
    """Say how many networks were cut where their last group begins, and which were not."""
    rows = [row for row in recorded["rows"] if row.get("split") is not None]
    ways = {"graph": "by its graph", "features": "at its features"}
    counts = [f"{sum(row['split'] == how for row in rows)} {words}" for how, words in ways.items()]
    others = [
        f"`{row['name']}`, {row['split'].removeprefix('not cut, ')}"
        for row in rows
        if row["split"] not in ways
    ]
    told = (
        "- **split**, cut where the last group begins, logits equal bit for bit and gradients to "
    )
    told += f"1e-6: of {recorded['num_candidates'].get('split', 0)}, {', '.join(counts)}; not cut: "
    minutes = recorded["seconds"].get("split", 0) / 60
    return f"{told}{'; '.join(others) or 'none'}; {minutes:.0f} core-minutes"


def _backbone_cells(row: dict[str, Any]) -> list[str]:
    """Give the cells of one architecture."""
    facts = [str(row.get(key, "")) for key in ("family", "head", "groups", "blocks", "grouped_by")]
    ends = {None: "", "pass": "pass"}
    step = ends.get(row["step"], "no")
    size = f" at {row['step_size']} px" if step == "pass" else ""
    count = f"{row['num_parameters'] / 1e6:.1f} M"
    return [f"`{row['name']}`", count, *facts, ends.get(row["shape"], "no"), f"{step}{size}"]


def tuning() -> str:
    """Show each variant's validation accuracy on each set: mean and range over its seeds."""
    if not TUNING.is_file():
        return "No figures are recorded yet."
    recorded = json.loads(TUNING.read_text(encoding="utf-8"))
    rows = recorded["rows"]
    sets = list(dict.fromkeys(row["data"] for row in rows))
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    lines = _table_head(["changed", *sets, "mean of the sets"])
    for variant in variants:
        found = [
            [row["last"] for row in rows if (row["data"], row["variant"]) == (data, variant)]
            for data in sets
        ]
        means = [sum(values) / len(values) for values in found if values]
        cells = [_spread(values) for values in found]
        whole = _percent(sum(means) / len(means)) if len(means) == len(sets) else ""
        lines.append(f"| `{variant}` | {' | '.join(cells)} | {whole} |")
    notes = [f"- {note}" for note in recorded["notes"]]
    return "\n".join([*_command(recorded), "", f"{recorded['device']}.", "", *notes, "", *lines])


def speed() -> str:
    """Show each job's medians: seconds, ratios to the fastest peer and floor, memory, accuracy."""
    return _speed(SPEED, "##")


def speed_before() -> str:
    """Show the same of earlier states of the code, where all four peers took part."""
    return _speed(SPEED_BEFORE, "###")


def _speed(file: Path, heading: str) -> str:
    """Show the medians of one file of measurements, a table for each job."""
    if not file.is_file():
        return "No figures are recorded yet."
    recorded = json.loads(file.read_text(encoding="utf-8"))
    commits = dict.fromkeys(
        f"`{row['commit']}`" + (f" on {on}" if (on := row.get("instructions")) else "")
        for row in recorded["rows"]
    )
    made = f"{recorded['device']}; {recorded['backbone']}; commit {', '.join(commits)}; "
    parts = ["\n".join(_command(recorded)), f"{made}raw figures: `{file.name}`."]
    for job in dict.fromkeys(row["job"] for row in recorded["summary"]):
        rows = [row for row in recorded["summary"] if row["job"] == job]
        names = ["photos", "contender", "rounds", "process s", "loop s", "process, times less"]
        names += ["loop, times less", "process, of the floor", "loop, of the floor"]
        names += ["processor s", "MiB", "accuracy (range)", "drift", "learning"]
        lines = [*_table_head(names), *(f"| {' | '.join(_speed_cells(row))} |" for row in rows)]
        parts += [f"{heading} {job}", "\n".join(lines)]
    return "\n\n".join(parts)


def _speed_cells(row: dict[str, Any]) -> list[str]:
    """Give the cells of one contender in one job on one set."""
    figures = ["wall_seconds", "loop_seconds", "wall_factor", "loop_factor"]
    figures += ["wall_of_floor", "loop_of_floor", "cpu_seconds", "peak_memory_mib"]
    accuracy = ""
    if row["accuracy"] is not None:
        low, high = (100 * end for end in row["accuracy_range"])
        accuracy = f"{_percent(row['accuracy'])} ({low:.1f} to {high:.1f})"
    return [
        f"{row['data']}, {row['num_photos']:,}",
        row["contender"],
        str(row["rounds"]),
        *(_cell(row, name) for name in figures),
        accuracy,
        "" if row["drift"] is None else _percent(row["drift"]),
        f"{row['trained_parameters']:,}",
    ]


def _spread(values: list[float]) -> str:
    """Show the mean of some shares in percent, their range, and how many there are."""
    if not values:
        return ""
    mean = sum(values) / len(values)
    low, high = 100 * min(values), 100 * max(values)
    return f"{_percent(mean)} ({low:.1f} to {high:.1f}, {len(values)} seeds)"


def _benchmark(file: Path) -> str:
    """Show one file of figures: its command, the machine, and every row."""
    recorded = json.loads(file.read_text(encoding="utf-8"))
    rows = recorded["rows"]
    names = [
        name
        for name, value in rows[0].items()
        if not name.endswith("_interval") and not isinstance(value, dict)  # the file has those
    ]
    lines = _table_head(names)
    lines += [f"| {' | '.join(_cell(row, name) for name in names)} |" for row in rows]
    made = f"{_origin(recorded)}; commit `{recorded['commit']}`; raw figures: `{file.name}`."
    notes = [f"- {note}" for note in recorded.get("notes", [])]
    parts = [_command(recorded), [made], notes, lines]
    return "\n\n".join([f"## {recorded['title']}", *("\n".join(part) for part in parts if part)])


def _table_head(names: Sequence[str]) -> list[str]:
    """Give the first two lines of a table."""
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def _origin(recorded: dict[str, Any]) -> str:
    """Say what was measured, and on what."""
    return "; ".join(recorded[name] for name in ("backbone", "device") if name in recorded)


def _command(recorded: dict[str, Any]) -> list[str]:
    """Show the command behind some figures."""
    return ["```bash", recorded["command"], "```"]


def _cell(row: dict[str, Any], name: str) -> str:
    """Show one figure, with its interval where it has one."""
    value, interval = row.get(name), row.get(f"{name}_interval")
    shown = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    return f"{shown} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else shown


def _accuracy(row: dict[str, Any]) -> str:
    """Show an accuracy in percent with its interval."""
    low, high = row["accuracy_interval"]
    return f"{_percent(row['accuracy'])} [{100 * low:.1f}, {100 * high:.1f}]"


def _percent(share: float) -> str:
    """Show a share in percent."""
    return f"{100 * share:.1f} %"


def _duration(seconds: float) -> str:
    """Show a duration in minutes, or in seconds where it is short."""
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _describe(command: Any, path: str) -> Iterator[str]:
    """Describe one command and, below it, its own commands."""
    context = command.make_context(path, [], resilient_parsing=True)
    pieces = [
        piece.replace("{", "").replace("}", "") for piece in command.collect_usage_pieces(context)
    ]
    yield f"## `{path}`"
    yield f"```text\n{' '.join([path, *pieces])}\n```"
    yield re.sub(r"^(Example: )(.+)$", r"\1`\2`", inspect.cleandoc(command.help or ""), flags=re.M)
    records = [param.get_help_record(context) for param in command.get_params(context)]
    rows = [
        f"| `{_escape(re.sub(r' <.*>$', '', name))}` | {_escape(help_text)} |"
        for name, help_text in filter(None, records)
    ]
    yield "\n".join(["| name | meaning |", "|---|---|", *rows])
    for name in getattr(command, "commands", {}):
        yield from _describe(command.commands[name], f"{path} {name}")


def _escape(text: str) -> str:
    """Keep a vertical bar from ending a cell."""
    return text.replace("|", "\\|")


def _tree(error: type[Any], depth: int) -> Iterator[tuple[int, type[Any]]]:
    """Walk the errors that `finetune.errors` defines, parents before children."""
    yield depth, error
    for child in error.__subclasses__():
        if child.__module__ == error.__module__:
            yield from _tree(child, depth + 1)


def _first_line(documented: Any) -> str:
    """Give the first sentence of a docstring, which may run over two lines."""
    return " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())


PARTS: dict[str, Callable[[], str]] = {
    "backbones": backbones,
    "benchmarks": benchmarks,
    "check": check,
    "faults": faults,
    "classifier": classifier,
    "commands": commands,
    "demo": demo,
    "doctor": doctor,
    "errors": errors,
    "recipe": recipe,
    "results": results,
    "speed": speed,
    "speed_before": speed_before,
    "tuning": tuning,
}

if __name__ == "__main__":
    main()
