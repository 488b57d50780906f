"""What `finetune check` found, as a document: plain values, the same keys in every one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.data.check import Examined
from finetune.data.findings import KINDS, Finding
from finetune.runtime.files import write_text
from finetune.types import Sample

__all__ = ["SCHEMA_VERSION", "describe_row", "findings_document", "write_findings"]

SCHEMA_VERSION = 1


def findings_document(
    findings: Sequence[Finding], examined: Examined, *, data: str, backbone: str | None = None
) -> dict[str, object]:
    """Give findings as plain values (`schema_version` 1), described in docs/reference/files.md.

    Args:
        findings: In the order of the document.
        examined: What they were found in.
        data: The folder or CSV.
        backbone: The network whose features were used; None where none was.
    """
    index = examined.index
    samples = {sample.name: sample for sample in index.samples}
    samples |= {sample.name: sample for sample, _ in examined.damaged}
    found = Counter(finding.kind for finding in findings)
    levels = Counter(KINDS[finding.kind].level for finding in findings)
    return {
        "schema_version": SCHEMA_VERSION,
        "data": data,
        "backbone": backbone,
        "num_images": len(index.samples),
        "num_unreadable": len(examined.damaged),
        "num_warnings": levels["warning"],
        "num_notes": levels["note"],
        "are_near_duplicates_searched": examined.is_compared,
        "counts": _counts(index.samples),
        "kinds": {
            kind: {"level": about.level, "meaning": about.meaning, "num_findings": found[kind]}
            for kind, about in KINDS.items()
        },
        "findings": [_row(finding, samples) for finding in findings],
    }


def write_findings(document: dict[str, object], path: Path) -> None:
    """Write a document of findings, whole or not at all.

    Raises:
        FinetuneError: The disk is full or the folder cannot be written.
    """
    write_text(path, json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def describe_row(finding: Mapping[str, Any]) -> str:
    """Say a finding of a document in a line: names that its detail does not have come first."""
    names = [*(file["path"] for file in finding["files"]), *finding["classes"]]
    if all(name in finding["detail"] for name in names):
        return str(finding["detail"])
    return f"{', '.join(names)}: {finding['detail']}"


def _counts(samples: Sequence[Sample]) -> dict[str, dict[str, int]]:
    """Count readable images by split (`all` where there is none) and class."""
    counts: dict[str, Counter[str]] = {}
    for sample in samples:
        if sample.label is not None:
            counts.setdefault(sample.split or "all", Counter())[sample.label] += 1
    return {split: dict(sorted(part.items())) for split, part in sorted(counts.items())}


def _row(finding: Finding, samples: dict[str, Sample]) -> dict[str, object]:
    """Give one finding as plain values."""
    kind = KINDS[finding.kind]
    files = [
        {
            "path": name,
            "label": samples[name].label if name in samples else None,
            "split": samples[name].split if name in samples else None,
        }
        for name in finding.names
    ]
    return {
        "kind": finding.kind,
        "level": kind.level,
        "files": [] if kind.is_of_classes else files,
        "classes": list(finding.names) if kind.is_of_classes else [],
        "detail": finding.detail,
        "value": finding.value,
    }
