"""`finetune check`: what is wrong or odd in a folder of photos, before anything is trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli.border import UsageError
from finetune.cli.options import Debug, Json, at_home, complete_backbone, require_file
from finetune.errors import DataError
from finetune.runtime.paths import absolute_path
from finetune.runtime.shell import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finetune.cli.render import Screen
    from finetune.data.check import Examined
    from finetune.data.findings import Finding
    from finetune.data.kept import KeptViews
    from finetune.types import Index

__all__ = ["check"]

_NUM_SHOWN = 3  # findings of a kind that are spelt out; --out and --json have all
_FEW = 100  # images; below, threads cost more than they give


_Strict = Annotated[
    bool, typer.Option("--strict", help="End with exit code 3 where there are warnings.")
]


def check(
    data: Annotated[
        str, typer.Argument(metavar="DIR|CSV", help="Photos in folders by class, or a CSV.")
    ],
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            metavar="NAME",
            help="Judge labels and likeness by this network's features as well.",
            autocompletion=complete_backbone,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.json",
            help="Write all findings, and beside them a fix list and a page.",
            callback=at_home,
        ),
    ] = None,
    strict: _Strict = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check photos in full: damage, duplicates, leaks between parts, contradictory labels.

    Nothing is changed or deleted.

    Example: finetune check photos/ --backbone mobilenetv3_small_100 --out findings.json
    """
    if out is not None:
        _check_out(out, data)
    from finetune.cli.render import Screen, print_json
    from finetune.data.findings import find_problems, sort_findings
    from finetune.report.findings import findings_document

    screen = Screen(sys.stderr)
    source = absolute_path(data)
    index = _index(source)
    judge = None if backbone is None else _Judge(backbone, index)
    examined = _examine(index, screen, kept=judge.kept if judge else None)
    suspects = judge.find_suspects(examined.index, screen) if judge else []
    findings = sort_findings([*find_problems(examined), *suspects])
    place = str(source.resolve())
    document = findings_document(findings, examined, data=place, backbone=backbone)
    if out is not None:
        _write(document, findings, examined, out, data=source)
    if json:
        print_json(document)
    else:
        _show(findings, examined, Screen(sys.stdout))
    if out is not None:
        _say_next(data, out, screen)
    if strict and document["num_warnings"]:
        number = document["num_warnings"]
        noun = "warning" if number == 1 else "warnings"
        raise DataError(f"{number} {noun} in {data}", hint="without --strict this is no error")


def _check_out(out: Path, data: str) -> None:
    """Refuse what could not be written in the end, or would replace the list of the photos."""
    from finetune.data.fixes import read_fixes

    require_file(out, (".json",))
    fixes = out.with_suffix(".csv")
    if absolute_path(fixes) == absolute_path(data):
        raise UsageError(
            f"--out {out} would write its fix list over {data}",
            hint=f"--out {out.with_name('findings.json')}",
        )
    if fixes.exists():
        read_fixes(fixes)


def _index(path: Path) -> Index:
    """Find the photos, with their classes where there are any."""
    from finetune.data.index import index_source, index_unlabelled

    unlabelled = index_unlabelled(path) if path.is_dir() else None
    return unlabelled or index_source(path)


class _Judge:
    """Judges photos by the features of a network, which is loaded before minutes of work."""

    def __init__(self, backbone: str, index: Index) -> None:
        from finetune.data.kept import KeptViews
        from finetune.model.create import create_model
        from finetune.recipe.load import load_recipe
        from finetune.recipe.merge import with_arguments

        recipe = with_arguments(load_recipe("probe"), backbone=backbone)
        self._backbone = backbone
        self._model = create_model(recipe, num_classes=max(2, len(index.classes)))
        self.kept = KeptViews(self._model.preprocessing)

    def find_suspects(self, index: Index, screen: Screen) -> list[Finding]:
        """Find photos of like features and labels that are probably wrong."""
        import numpy as np

        from finetune.cli.predict import inference_options, shown_progress
        from finetune.evaluate.suspects import find_similar, find_suspect_labels
        from finetune.model.features import compute_features
        from finetune.train.linear import Features

        samples = index.samples
        with shown_progress(screen, "features") as progress:
            values = compute_features(
                self._model,
                samples,
                label=self._backbone,
                options=inference_options(len(samples)),
                kept=self.kept,
                progress=progress,
            )
        similar = list(find_similar(values, samples))
        classes = sorted({sample.label for sample in samples if sample.label is not None})
        if not classes:
            return similar
        labels = np.array([classes.index(str(sample.label)) for sample in samples])
        return [*similar, *find_suspect_labels(Features(values, labels), samples, classes)]


def _examine(index: Index, screen: Screen, *, kept: KeptViews | None) -> Examined:
    """Decode every image, with progress on a screen."""
    from finetune.cli.predict import shown_progress
    from finetune.data.check import examine_images
    from finetune.recipe.schema import DataSection
    from finetune.runtime.device import available_cpus

    workers = available_cpus() if len(index.samples) > _FEW else 0
    with shown_progress(screen, "checking images") as progress:
        return examine_images(
            index,
            max_pixels=DataSection().max_pixels,
            kept=kept,
            workers=workers,
            progress=progress,
        )


def _write(
    document: dict[str, object],
    findings: Sequence[Finding],
    examined: Examined,
    out: Path,
    *,
    data: Path,
) -> None:
    """Write the document, and the fix list and the page beside it."""
    from finetune.data.fixes import propose_fixes, write_fixes
    from finetune.report.checkup import write_findings_page
    from finetune.report.findings import write_findings
    from finetune.report.photos import photo_root
    from finetune.runtime.files import make_folder

    make_folder(out.parent)
    write_fixes(propose_fixes(findings, examined.index), out.with_suffix(".csv"))
    write_findings_page(document, out.with_suffix(".html"), root=photo_root(data))
    write_findings(document, out)


def _show(findings: Sequence[Finding], examined: Examined, screen: Screen) -> None:
    """Write the table of what was found, and the first findings of each kind."""
    from finetune.cli.render import Column, count, printable
    from finetune.data.findings import KINDS

    index = examined.index
    classes = f", {len(index.classes)} classes" if index.classes else ", no classes"
    screen.line(f"{count(len(index.samples))} images{classes}", style="bold")
    by_kind = {kind: [finding for finding in findings if finding.kind == kind] for kind in KINDS}
    by_kind = {kind: found for kind, found in by_kind.items() if found}
    if not by_kind:
        screen.line("nothing found")
        return
    columns = [Column("finding", "left"), Column("number"), Column("level", "left")]
    columns.append(Column("what it is", "left", is_shortened=True))
    rows = [
        [kind, count(len(found)), KINDS[kind].level, KINDS[kind].meaning]
        for kind, found in by_kind.items()
    ]
    screen.table(columns, rows)
    for kind, found in by_kind.items():
        screen.line()
        screen.line(kind, style="bold" if KINDS[kind].level == "note" else "yellow")
        for finding in found[:_NUM_SHOWN]:
            screen.line(f"  {printable(_described(finding))}")
        if len(found) > _NUM_SHOWN:
            screen.line(f"  and {count(len(found) - _NUM_SHOWN)} more")


def _described(finding: Finding) -> str:
    """Say one finding in a line: names that its detail does not have come first."""
    if all(name in finding.detail for name in finding.names):
        return finding.detail
    return f"{', '.join(finding.names)}: {finding.detail}"


def _say_next(data: str, out: Path, screen: Screen) -> None:
    """Say what was written, and what to do with it."""
    fixes = out.with_suffix(".csv")
    screen.line(f"findings: {out}")
    screen.line(f"page: {out.with_suffix('.html')}")
    screen.line(f"fix list: {fixes}: edit its column action, then")
    screen.line(f"  finetune run --data {quote(data)} --exclude {quote(str(fixes))}")
