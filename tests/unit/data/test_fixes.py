"""The fix list: proposed, edited, written again, honoured."""

from pathlib import Path

import pytest

from finetune.data.findings import Finding
from finetune.data.fixes import Fix, apply_fixes, propose_fixes, read_fixes, write_fixes
from finetune.errors import DataError
from finetune.types import Index, LeftOut, Sample

ROOT = Path("/photos")


def index_of(**splits):
    samples = (Sample(ROOT / name, name, name[0], split) for name, split in splits.items())
    return Index(ROOT, tuple(samples), ("a", "b"))


def listed(path, *rows, header="path,finding,action,reason"):
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path


def test_only_what_is_beyond_doubt_is_proposed_for_exclusion():
    index = index_of(a1="train", a2="test", b1="train", b2="train")
    findings = [
        Finding("leak", ("a1", "a2"), "a1 = a2"),
        Finding("near_conflict", ("a1", "b1"), "a1 ~ b1", 0.99),
        Finding("truncated", ("b9",), "truncated: half"),
        Finding("small_class", ("b",), "2 training images", 2),
        Finding("duplicate", ("b1", "b2"), "b1 = b2"),
        Finding("turned", ("b1",), "JPEG, shown upright"),
    ]
    assert propose_fixes(findings, index) == (
        Fix("a1", "leak", "exclude", "a1 = a2"),
        Fix("a2", "leak", "keep", "a1 = a2"),
        Fix("a1", "near_conflict", "keep", "a1 ~ b1"),
        Fix("b1", "near_conflict", "keep", "a1 ~ b1"),
        Fix("b9", "truncated", "exclude", "truncated: half"),
        Fix("b1", "duplicate", "keep", "b1 = b2"),
        Fix("b2", "duplicate", "exclude", "b1 = b2"),
    )


def test_a_list_comes_back_as_it_was_written(tmp_path):
    fixes = (
        Fix('a, "1".jpg', "leak", "exclude", "x\ny"),
        Fix("b", "conflict", "keep", ""),
        Fix("Icon\r", "empty", "exclude", "empty file"),
    )
    write_fixes(fixes, tmp_path / "fixes.csv")
    assert read_fixes(tmp_path / "fixes.csv") == fixes


def test_what_a_person_decided_stays_when_the_list_is_written_again(tmp_path):
    path = listed(tmp_path / "fixes.csv", "a,leak,keep,old", "own.jpg,,Exclude,blurred")
    write_fixes((Fix("a", "leak", "exclude", "new"), Fix("b", "leak", "exclude", "new")), path)
    assert read_fixes(path) == (
        Fix("a", "leak", "keep", "new"),
        Fix("b", "leak", "exclude", "new"),
        Fix("own.jpg", "", "exclude", "blurred"),
    )


def test_a_run_leaves_out_what_is_excluded_and_nothing_else(tmp_path):
    path = listed(tmp_path / "fixes.csv", "a1,leak,exclude,", "a2,leak,keep,", "b1,,exclude,")
    index = apply_fixes(index_of(a1="train", a2="train", b1="train"), path)
    assert [sample.name for sample in index.samples] == ["a2"]
    assert index.classes == ("a",)
    assert index.left_out == (
        LeftOut("a1", "excluded by fixes.csv"),
        LeftOut("b1", "excluded by fixes.csv"),
    )
    assert index.warnings == ()


def test_a_path_that_is_not_among_the_photos_is_said(tmp_path):
    path = listed(tmp_path / "fixes.csv", "a1,,exclude,", "gone.jpg,,exclude,")
    assert apply_fixes(index_of(a1="train", a2="train"), path).warnings == (
        "fixes.csv excludes 1 path that is not among the photos: gone.jpg",
    )


def test_path_and_action_are_enough(tmp_path):
    path = listed(tmp_path / "fixes.csv", "a1,exclude", header="path,action")
    assert read_fixes(path) == (Fix("a1", "", "exclude", ""),)


def test_a_list_that_leaves_nothing_is_refused(tmp_path):
    path = listed(tmp_path / "fixes.csv", "a1,,exclude,")
    with pytest.raises(DataError, match="no photo of /photos is left: all are excluded by fixes"):
        apply_fixes(index_of(a1="train"), path)


def test_an_unknown_action_is_refused_with_its_line(tmp_path):
    path = listed(tmp_path / "fixes.csv", "a,leak,keep,", "b,leak,delete,")
    with pytest.raises(DataError) as caught:
        read_fixes(path)
    assert caught.value.message == (f"the fix list {path} has an unknown action: 'delete' (line 3)")
    assert caught.value.hint == "allowed are keep and exclude"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"path,finding\na,leak\n", "has no column 'action'"),
        (b"\xff\xfe", "is no UTF-8 CSV"),
        (b'path,action\n"a,keep', "is no UTF-8 CSV"),
    ],
)
def test_what_is_no_fix_list_is_refused(tmp_path, content, said):
    path = tmp_path / "fixes.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_fixes(path)
    assert caught.value.hint == (
        "the header is path,finding,action,reason; finetune check DIR --out FILE.json writes one"
    )


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the fix list .*none\.csv: No such file"):
        read_fixes(tmp_path / "none.csv")
