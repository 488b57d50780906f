"""Charts: figures of matplotlib, as files beside the report and as pictures within it.

The only file that imports matplotlib, when a chart is drawn: no run waits for it before it ends.
No global state of it is touched. Equal figures give a chart that is equal byte for byte.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.report.material import Epoch, Material
from finetune.runtime.files import make_folder, write_with

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from finetune.evaluate.figures import ClassFigures

__all__ = [
    "COLOURS",
    "draw_coverage",
    "draw_losses",
    "draw_reliability",
    "draw_scores",
    "svg_of",
    "write_plots",
]

# What a chart is drawn in, on white; the page replaces them by its own, light or dark. Chosen from
# the palette of Okabe and Ito, which people with any colour vision tell apart.
COLOURS = {
    "ink": "#1b2430",
    "muted": "#5b6675",
    "grid": "#d8dde4",
    "one": "#0072b2",
    "two": "#d55e00",
    "three": "#007a5a",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, copied and read aloud
    "svg.hashsalt": "finetune",
    "text.parse_math": False,  # a class may be called $5
    "font.size": 10.0,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "grid.color": COLOURS["grid"],
    "legend.frameon": False,
    "figure.facecolor": "#ffffff",
    "axes.facecolor": "none",
    "savefig.facecolor": "#ffffff",
}
_SIZE_INCHES = (5.2, 3.0)  # of one chart: 10 points are readable at the width of a phone
_DPI = 150
_MAX_CLASSES = 40  # rows of a chart: more cannot be read
_NAMED = 0.12  # of the width: the name of a shorter stage runs into the next


def draw_losses(epochs: Sequence[Epoch]) -> Figure:
    """Draw the losses of training and validation by epoch."""
    with _styled() as figure:
        _draw_losses(figure.subplots(), epochs)
    return figure


def draw_scores(epochs: Sequence[Epoch]) -> Figure:
    """Draw the accuracy and the macro F1 of validation by epoch."""
    with _styled() as figure:
        _draw_scores(figure.subplots(), epochs)
    return figure


def draw_reliability(bins: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw how often answers are right against how sure they are, by bins of confidence.

    Args:
        bins: As `reliability` in `metrics.json` has them.
    """
    with _styled() as figure:
        _draw_reliability(figure.subplots(), bins)
    return figure


def draw_coverage(points: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the accuracy of the most confident answers against their share of all.

    Args:
        points: As `coverage_accuracy` in `metrics.json` has them.
    """
    with _styled() as figure:
        _draw_coverage(figure.subplots(), points)
    return figure


def svg_of(figure: Figure) -> bytes:
    """Give a figure as an SVG file; the same figure gives the same bytes."""
    stream = BytesIO()
    _save(figure, stream, kind="svg")
    return stream.getvalue()


def write_plots(material: Material, folder: Path) -> tuple[Path, ...]:
    """Write the main charts, each as SVG and as PNG.

    Args:
        material: What is known of the run.
        folder: Made where it is missing.

    Returns:
        The files.

    Raises:
        FinetuneError: A file cannot be written; the sentence says why.
    """
    make_folder(folder)
    written = []
    for name, figure in _figures(material):
        for kind in ("svg", "png"):
            path = folder / f"{name}.{kind}"
            write_with(path, partial(_save, figure, kind=kind))
            figure.set_layout_engine("none")  # it is laid out now, for both
            written.append(path)
    return tuple(written)


def _figures(material: Material) -> Iterator[tuple[str, Figure]]:
    """Draw each chart that there are figures for."""
    if len(material.epochs) > 1:
        with _styled(2 * _SIZE_INCHES[0], _SIZE_INCHES[1]) as figure:
            left, right = figure.subplots(1, 2)
            _draw_losses(left, material.epochs)
            _draw_scores(right, material.epochs)
        yield "learning_curves", figure
    rows = sorted(
        material.main.figures.per_class, key=lambda row: (row.f1 is None, row.f1 or 0.0, row.name)
    )[:_MAX_CLASSES]
    with _styled(_SIZE_INCHES[0], 1.0 + 0.25 * len(rows)) as figure:
        _draw_classes(figure.subplots(), rows)
    yield "class_f1", figure
    doubt = material.main.document.get("calibration")
    if doubt:
        with _styled(2 * _SIZE_INCHES[0], _SIZE_INCHES[1]) as figure:
            left, right = figure.subplots(1, 2)
            _draw_reliability(left, doubt["reliability"])
            _draw_coverage(right, doubt["coverage_accuracy"])
        yield "calibration", figure
    side = 2.0 + 0.3 * min(len(material.classes), _MAX_CLASSES)
    with _styled(side, side) as figure:
        _draw_confusion(figure.subplots(), material)
    yield "confusion_matrix", figure


@contextmanager
def _styled(width: float = _SIZE_INCHES[0], height: float = _SIZE_INCHES[1]) -> Iterator[Figure]:
    """Give an empty figure in our style; what is drawn in the block has it as well."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE), _without_glyph_warnings():
        yield Figure(figsize=(width, height), layout="constrained")


@contextmanager
def _without_glyph_warnings() -> Iterator[None]:
    """Say nothing of letters that the font lacks: the page shows them in its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        yield


def _save(figure: Figure, target: Any, *, kind: str) -> None:
    """Write a figure without date and version, so that it is the same tomorrow."""
    from matplotlib import rc_context

    unknown = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with rc_context(_STYLE), _without_glyph_warnings():
        figure.savefig(target, format=kind, dpi=_DPI, metadata=unknown)


def _draw_losses(axes: Axes, epochs: Sequence[Epoch]) -> None:
    """Draw losses into axes."""
    _draw_lines(
        axes,
        epochs,
        {
            "training": [epoch.train_loss for epoch in epochs],
            "validation": [epoch.val_loss for epoch in epochs],
        },
    )
    axes.set_ylabel("loss (nats)")
    axes.set_ylim(bottom=0.0)


def _draw_scores(axes: Axes, epochs: Sequence[Epoch]) -> None:
    """Draw figures of validation into axes."""
    from matplotlib.ticker import PercentFormatter

    _draw_lines(
        axes,
        epochs,
        {
            "accuracy": [epoch.val_accuracy for epoch in epochs],
            "macro F1": [epoch.val_macro_f1 for epoch in epochs],
        },
    )
    axes.set_ylabel("on validation")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol=" %"))


def _draw_lines(axes: Axes, epochs: Sequence[Epoch], lines: dict[str, list[float | None]]) -> None:
    """Draw lines over epochs, with the stages named above."""
    from matplotlib.ticker import MaxNLocator

    places = np.arange(1, len(epochs) + 1)
    looks = (("one", "o", "-"), ("two", "s", "--"))  # told apart without colour as well
    for (label, values), (colour, marker, dash) in zip(lines.items(), looks, strict=True):
        numbers = np.array([np.nan if value is None else value for value in values])
        axes.plot(
            places,
            numbers,
            dash,
            color=COLOURS[colour],
            label=label,
            marker=marker,
            markersize=4,
            markevery=max(1, len(epochs) // 20),
        )
    starts = [place for place in places[1:] if epochs[place - 1].stage != epochs[place - 2].stage]
    for start in starts:
        axes.axvline(start - 0.5, color=COLOURS["muted"], linewidth=0.8, linestyle=":")
    for start, end in zip((1, *starts), (*starts, len(epochs) + 1), strict=True):
        if end - start < _NAMED * len(epochs):
            continue
        axes.annotate(
            epochs[start - 1].stage[:16],
            (start - 0.5 if start > 1 else start, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 3),
            textcoords="offset points",
            color=COLOURS["muted"],
            fontsize=9,
        )
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    axes.legend(loc="best")


def _draw_reliability(axes: Axes, bins: Sequence[Mapping[str, Any]]) -> None:
    """Draw accuracy over confidence into axes; the area of a point is its number of photos."""
    full = [one for one in bins if one["num_samples"]]
    confidence = np.array([one["confidence"] for one in full])
    accuracy = np.array([one["accuracy"] for one in full])
    numbers = np.array([one["num_samples"] for one in full], dtype=float)
    axes.plot([0, 1], [0, 1], ":", color=COLOURS["muted"], label="honest")
    axes.plot(confidence, accuracy, "-", color=COLOURS["one"], linewidth=1.0)
    axes.scatter(
        confidence,
        accuracy,
        s=12 + 108 * numbers / numbers.max(initial=1.0),
        color=COLOURS["one"],
        label="photos, by number",
    )
    axes.set_xlabel("confidence")
    axes.set_ylabel("share that is right")
    _as_shares(axes, (axes.xaxis, axes.yaxis))
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.04, 1.04)
    axes.legend(loc="best")


def _draw_coverage(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    """Draw accuracy over the share that is answered into axes."""
    axes.plot(
        [point["coverage"] for point in points],
        [point["accuracy"] for point in points],
        "-",
        color=COLOURS["one"],
        marker="o" if len(points) <= 20 else "",
        markersize=4,
    )
    axes.set_xlabel("photos answered, the surest first")
    axes.set_ylabel("share of them that is right")
    _as_shares(axes, (axes.xaxis, axes.yaxis))
    axes.set_xlim(0.0, 1.02)


def _as_shares(axes: Axes, sides: Sequence[Any]) -> None:
    """Write ticks in percent, over a grid."""
    from matplotlib.ticker import PercentFormatter

    for side in sides:
        side.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol=" %"))
    axes.grid(axis="both")


def _draw_classes(axes: Axes, rows: Sequence[ClassFigures]) -> None:
    """Draw F1 of classes with intervals, the weakest at the top."""
    from matplotlib.ticker import PercentFormatter

    known = [row for row in rows if row.f1 is not None and row.f1_interval is not None]
    places = np.arange(len(known))
    ends = np.array([row.f1_interval for row in known], dtype=float).reshape(-1, 2)
    axes.hlines(places, ends[:, 0], ends[:, 1], color=COLOURS["one"], linewidth=2, alpha=0.5)
    axes.plot([row.f1 or 0.0 for row in known], places, "o", color=COLOURS["one"])
    axes.set_yticks(places, [row.name[:30] for row in known])
    axes.invert_yaxis()
    axes.set_xlim(0.0, 1.0)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.set_xlabel("F1 with its 95 % interval")
    axes.grid(axis="x")


def _draw_confusion(axes: Axes, material: Material) -> None:
    """Draw the matrix: numbers of photos, on a shade for their share of the true class."""
    counts = material.main.answers.confusion
    if len(counts) > _MAX_CLASSES:
        chosen = np.sort(np.argsort(-(counts.sum(axis=1) - counts.diagonal()))[:_MAX_CLASSES])
    else:
        chosen = np.arange(len(counts))
    shown = counts[np.ix_(chosen, chosen)]
    shares = shown / counts.sum(axis=1)[chosen].clip(1)[:, None]
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    names = [material.classes[place][:20] for place in chosen]
    axes.set_xticks(np.arange(len(names)), names, rotation=90)
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for (row, column), number in np.ndenumerate(shown):
        if number:
            colour = "white" if shares[row, column] > 0.55 else COLOURS["ink"]
            axes.text(column, row, str(number), ha="center", va="center", color=colour, fontsize=7)
