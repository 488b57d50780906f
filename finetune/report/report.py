"""The report of a run: `report.html` and its charts, made from the files of the run alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.errors import DataError, FinetuneError
from finetune.report.gallery import choose_photos
from finetune.report.maps import Looker
from finetune.report.material import Material, read_material
from finetune.report.photos import photo_root, read_photos

if TYPE_CHECKING:
    from finetune.model.bundle import Bundle
    from finetune.report.checked import Checked

__all__ = ["REPORT_NAME", "Report", "try_report", "write_report"]

REPORT_NAME = "report.html"
_PLOTS = "plots"
# What drawing and rendering were seen to raise where a library is damaged or no memory is left.
_FAILURES = (
    *(ArithmeticError, AttributeError, ImportError, LookupError, MemoryError),
    *(OSError, RuntimeError, TypeError, ValueError),
)


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was written.

    Attributes:
        path: The page.
        num_photos: Photos that it shows or would show.
        num_missing: Those of which there is no picture.
        reason: Why the first of these is missing; empty where none is.
    """

    path: Path
    num_photos: int
    num_missing: int
    reason: str = ""


def write_report(
    folder: Path,
    bundle: Bundle | None = None,
    *,
    data: Path | None = None,
    check: Path | None = None,
) -> Report:
    """Write `report.html` and `plots/` into the folder of a run or an evaluation.

    Args:
        folder: Where its files stand; what they say is all that the report says.
        bundle: The model that gave the answers, for maps of where it looked; None takes that of
            the folder, where there is one.
        data: Folder or CSV of the photos; None takes what the recipe names.
        check: What `finetune check --out` wrote of these photos, to be told in the page as well.

    Raises:
        FinetuneError: It is no such folder, a file is damaged, or the page cannot be written.
        DataError: `data` does not exist, or `check` is no such document.
    """
    from finetune.report.checked import read_checked
    from finetune.report.page import write_page
    from finetune.report.plots import write_plots

    if data is not None and not data.exists():
        raise DataError(f"{data} does not exist", hint="name the folder or CSV of the photos")
    material = read_material(folder)
    checked = None if check is None else read_checked(check)
    report, text = _make_page(material, data, Looker(material, bundle), checked)
    write_page(text, report.path)
    write_plots(material, folder / _PLOTS)
    return report


def try_report(
    folder: Path, bundle: Bundle | None = None, *, warn: Callable[[str], None]
) -> Report | None:
    """Write the report at the end of a run, which is not lost where that fails.

    Args:
        folder: The run folder.
        bundle: The model of the run, where it is at hand.
        warn: Told why there is no report.
    """
    try:
        return write_report(folder, bundle)
    except FinetuneError as error:
        reason = error.message
    except _FAILURES as error:
        reason = f"{type(error).__name__}: {error}"
    warn(f"no {REPORT_NAME}: {reason}; the run is complete, try finetune report {folder}")
    return None


def _make_page(
    material: Material, data: Path | None, looker: Looker, checked: Checked | None
) -> tuple[Report, str]:
    """Make the page of a run."""
    from finetune.report.page import Head, render_page
    from finetune.report.sections import build_sections
    from finetune.report.source import Source

    main = material.main
    gallery = choose_photos(main.answers, were_trained_on=main.split == "train")
    source_path = data or material.data
    names = [main.answers.names[place] for place in gallery.photos]
    root = photo_root(source_path) if source_path else None
    photos = read_photos(root, names)
    source = Source.of(material, gallery, photos, looker.look(gallery, photos, root))
    source = replace(source, checked=checked)
    kind = "Run" if material.is_run else "Evaluation of"
    head = Head(
        title=f"{kind} {material.name}",
        subtitle=f"{material.backbone} · {len(material.classes)} classes",
        origin=(
            "from the files of the run; finetune report RUN makes it anew"
            if checked is None
            else f"from the files of the run and {checked.file}; finetune report RUN --check FILE "
            "makes it anew"
        ),
    )
    shots = source.shots.values()
    text = render_page(
        head,
        build_sections(source),
        {shot.key: shot.photo for shot in shots},
        {shot.key: shot.details for shot in shots},
    )
    missing = [photo.reason for photo in photos.values() if photo.uri is None]
    path = material.folder / REPORT_NAME
    return Report(path, len(photos), len(missing), next(iter(missing), "")), text
