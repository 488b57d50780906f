"""What every contender of the speed measurement does: jobs, what learns in them, and for how long.

Standard library only: the peers, which have an environment of their own, read it as well.
"""

from pathlib import Path

__all__ = ["IMAGE_SUFFIXES", "JOBS", "LEARNS", "frozen_names", "learns", "list_photos", "phases_of"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

# Phases of a job: what learns, and for how many passes over the training photos.
JOBS: dict[str, tuple[tuple[str, int], ...]] = {
    "head": (("head", 10),),
    "last2": (("head", 3), ("last2", 5)),
    "full": (("head", 3), ("all", 5)),
    "all": (("all", 5),),
    "predict": (),
}
# What learns, as beginnings of timm's names of MobileNetV2. `last2` is the two last blocks of
# `{last_blocks: 2}`: timm's own grouping counts conv_head and bn2 with the last block.
LEARNS: dict[str, tuple[str, ...]] = {
    "head": ("classifier.",),
    "last2": ("blocks.5.2.", "blocks.6.", "conv_head.", "bn2.", "classifier."),
    "all": ("",),
}


def phases_of(job: str, max_epochs: int | None = None) -> tuple[tuple[str, int], ...]:
    """Give the phases of a job; `max_epochs` shortens each, to try things out."""
    limit = max_epochs or 1_000
    return tuple((what, min(epochs, limit)) for what, epochs in JOBS[job])


def learns(name: str, what: str) -> bool:
    """Tell whether a parameter of timm's MobileNetV2 learns in a phase."""
    return name.startswith(LEARNS[what])


def frozen_names(names: list[str], job: str) -> list[str]:
    """Keep the names of what is frozen while the drift is measured.

    That is the phase of the head in a job that then trains everything, and the whole job in others.
    """
    phases = [what for what, _ in JOBS[job]]
    judged = phases[:1] if phases[-1] == "all" and len(phases) > 1 else phases
    return [name for name in names if not any(learns(name, what) for what in judged)]


def list_photos(folder: Path) -> list[Path]:
    """List the photos below a folder, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
