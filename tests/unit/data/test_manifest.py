"""CSV manifests: what they may say, and a sentence for everything that is wrong in one."""

from pathlib import Path

import pytest

from finetune.data.index import index_source
from finetune.errors import DataError
from finetune.types import Index

HINT = "the header is path,label with optional split and group; paths are relative to the CSV"


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a.jpg", "b.jpg", "c d.jpg", "sub/e.jpg", "é.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def read(folder: Path, text: str | bytes, name: str = "photos.csv") -> Index:
    data = text.encode() if isinstance(text, str) else text
    (folder / name).write_bytes(data)
    return index_source(folder / name)


def message(folder: Path, text: str | bytes) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, text)
    return caught.value.message.replace(str(folder), "DIR")


def rows(index: Index) -> list[tuple[object, ...]]:
    return [(sample.name, sample.label, sample.split, sample.group) for sample in index.samples]


def test_paths_and_labels_are_read_in_the_order_of_names(folder):
    index = read(folder, "path,label\nsub/e.jpg,two\na.jpg,one\n")
    assert rows(index) == [("a.jpg", "one", None, None), ("sub/e.jpg", "two", None, None)]
    assert index.root == folder
    assert index.classes == ("one", "two")
    assert index.samples[0].path == folder / "a.jpg"
    assert index.warnings == ()


def test_split_and_group_are_read_in_any_order_of_columns(folder):
    text = "group,split,other,label,path\ng1,Train,x,one,a.jpg\n,validation,x,two,b.jpg\n"
    assert rows(read(folder, text)) == [
        ("a.jpg", "one", "train", "g1"),
        ("b.jpg", "two", "val", None),
    ]


def test_classes_are_those_of_the_training_part(folder):
    text = "path,label,split\na.jpg,one,train\nb.jpg,two,test\n"
    assert read(folder, text).classes == ("one",)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_are_found_in_the_header(folder, delimiter):
    text = "path,label\na.jpg,one\n".replace(",", delimiter)
    assert rows(read(folder, text)) == [("a.jpg", "one", None, None)]


def test_a_byte_order_mark_spaces_and_blank_lines_are_no_matter(folder):
    text = b"\xef\xbb\xbf Path , LABEL\r\n\r\na.jpg, one \r\n"
    assert rows(read(folder, text)) == [("a.jpg", "one", None, None)]


def test_names_with_spaces_accents_and_quotes_are_found(folder):
    text = 'path,label\n"c d.jpg",one\né.jpg,"two, or so"\n'
    assert rows(read(folder, text)) == [
        ("c d.jpg", "one", None, None),
        ("é.jpg", "two, or so", None, None),
    ]


def test_decomposed_and_composed_accents_are_one_class(folder):
    assert read(folder, "path,label\na.jpg,cafe\u0301\nb.jpg,caf\u00e9\n").classes == ("caf\u00e9",)


@pytest.mark.parametrize("path", ["sub\\e.jpg", " sub/e.jpg ", "./sub/e.jpg", "sub/../sub/e.jpg"])
def test_a_path_may_be_spelt_in_other_ways(folder, path):
    assert read(folder, f"path,label\n{path},one\n").samples[0].name == "sub/e.jpg"


def test_an_absolute_path_inside_the_folder_is_made_relative(folder):
    assert read(folder, f"path,label\n{folder}/a.jpg,one\n").samples[0].name == "a.jpg"


def test_a_repeated_row_counts_once_and_is_said(folder):
    index = read(folder, "path,label\na.jpg,one\nb.jpg,two\n./a.jpg,one\n")
    assert len(index.samples) == 2
    assert index.warnings == ("photos.csv repeats a file in 1 row, counted once: a.jpg",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "DIR/photos.csv has no column 'path', it has: none"),
        ("path,class\na.jpg,x\n", "DIR/photos.csv has no column 'label', it has: path, class"),
        (
            "paths,label\na.jpg,x\n",
            "DIR/photos.csv has no column 'path', it has: paths, label; is it 'paths'?",
        ),
        ("path,label,path\na.jpg,x,y\n", "DIR/photos.csv has two columns called 'path'"),
        ("path,label\n", "DIR/photos.csv holds no rows"),
        ("path,label\na.jpg,\nb.jpg\n", "DIR/photos.csv has 2 rows without a label: line 2, 3"),
        ("path,label\n,x\n", "DIR/photos.csv has 1 row without a path: line 2"),
        ("path,label\na.jpg,x,y\n", "DIR/photos.csv:2 has 3 values, the header 2"),
        ("path,label\nnope.jpg,x\n", "photos.csv has 1 path that leads to no file: nope.jpg"),
        ("path,label\nsub,x\n", "photos.csv has 1 path that leads to no file: sub"),
        (
            f"path,label\n{'a' * 300},x\n",  # longer than the name of any file
            f"photos.csv has 1 path that leads to no file: {'a' * 300}",
        ),
        (
            "path,label\n../x.jpg,x\n/etc/y.jpg,x\n",
            "photos.csv has 2 paths that lead out of its folder: ../x.jpg, /etc/y.jpg",
        ),
        (
            "path,label\na.jpg,x\na.jpg,y\n",
            "photos.csv contradicts itself: a.jpg (label x and y)",
        ),
        (
            "path,label,split\na.jpg,x,train\na.jpg,x,val\n",
            "photos.csv contradicts itself: a.jpg (split train and val)",
        ),
        (
            "path,label,split\na.jpg,x,dev\nb.jpg,x,train\n",
            "DIR/photos.csv has the split 'dev' (line 2); "
            "allowed: train, val, valid, validation, test",
        ),
        (
            "path,label,split\na.jpg,x,\nb.jpg,x,train\n",
            "DIR/photos.csv has 1 row without a split beside others: line 2",
        ),
        ('path,label\n"a.jpg,x\n', "DIR/photos.csv is no well-formed CSV: unexpected end of data"),
        (b"path,label\na.jpg,caf\xe9\n", "DIR/photos.csv is not UTF-8: byte 0xe9 at 20"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(folder, text, expected):
    assert message(folder, text) == expected


def test_many_unknown_paths_are_named_five_and_counted(folder):
    text = "path,label\n" + "".join(f"n{i:02d}.jpg,x\n" for i in range(42))
    assert message(folder, text) == (
        "photos.csv has 42 paths that lead to no file: "
        "n00.jpg, n01.jpg, n02.jpg, n03.jpg, n04.jpg and 37 more"
    )


def test_the_hint_tells_the_header(folder):
    with pytest.raises(DataError) as caught:
        read(folder, "a,b\n")
    assert caught.value.hint == HINT


def test_a_csv_that_cannot_be_opened_says_why(folder, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    (folder / "photos.csv").touch()
    with pytest.raises(DataError, match=r"cannot read .*photos\.csv: permission denied"):
        index_source(folder / "photos.csv")


def test_further_columns_are_kept_without_their_empty_values(folder):
    index = read(folder, "path,Camera,label,note\na.jpg, phone ,one,\nb.jpg,,two,wet\n")
    assert [sample.extra for sample in index.samples] == [
        (("camera", "phone"),),
        (("note", "wet"),),
    ]
