"""Splitting: stratified, grouped, copies together, a function of content and seed alone."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.split import read_split, reuse_split, split_index, write_split
from finetune.errors import DataError
from finetune.types import Index, Sample

ROOT = Path("/photos")


def sample(name: str, label: str, **values: object) -> Sample:
    return replace(Sample(path=ROOT / name, name=name, label=label, digest=f"d-{name}"), **values)


def index_of(samples: list[Sample]) -> Index:
    ordered = tuple(sorted(samples, key=lambda one: one.name))
    return Index(ROOT, ordered, tuple(sorted({str(one.label) for one in ordered})))


def classes(**counts: int) -> list[Sample]:
    return [sample(f"{name}/{i:03d}", name) for name, count in counts.items() for i in range(count)]


def split(samples: list[Sample], *, val=0.15, test=0.15, seed=0) -> Index:
    return split_index(index_of(samples), val_fraction=val, test_fraction=test, seed=seed)


def counts(index: Index) -> dict[str, dict[str, int]]:
    return {
        part: dict(sorted(Counter(str(one.label) for one in index.part(part)).items()))
        for part in ("train", "val", "test")
    }


def places(index: Index) -> dict[str | None, str | None]:
    return {one.digest: one.split for one in index.samples}


def test_every_class_gives_its_fraction_to_each_part():
    assert counts(split(classes(a=100, b=40, c=7))) == {
        "train": {"a": 70, "b": 28, "c": 5},
        "val": {"a": 15, "b": 6, "c": 1},
        "test": {"a": 15, "b": 6, "c": 1},
    }


def test_a_class_of_three_has_one_image_in_each_part():
    each = {"a": 1, "b": 1}
    assert counts(split(classes(a=3, b=3))) == {"train": each, "val": each, "test": each}


def test_a_class_of_two_stays_in_train_and_that_is_said():
    index = split(classes(a=20, b=2, c=1))
    assert counts(index) == {
        "train": {"a": 14, "b": 2, "c": 1},
        "val": {"a": 3},
        "test": {"a": 3},
    }
    assert index.warnings == (
        "2 classes have too few images for test and none there: b (2), c (1)",
        "2 classes have too few images for val and none there: b (2), c (1)",
        "1 class has one training image only: c",
    )


def test_a_test_fraction_of_zero_carves_no_test():
    index = split(classes(a=20, b=20), test=0)
    assert counts(index) == {"train": {"a": 17, "b": 17}, "val": {"a": 3, "b": 3}, "test": {}}


def test_a_missing_val_is_carved_out_of_train_and_test_is_left_alone():
    given_parts = [replace(one, split="train") for one in classes(a=20, b=20)]
    tests = [sample(f"t{i}", "a", split="test") for i in range(5)]
    index = split(given_parts + tests)
    assert counts(index) == {
        "train": {"a": 17, "b": 17},
        "val": {"a": 3, "b": 3},
        "test": {"a": 5},
    }


def test_parts_that_are_given_are_kept():
    parts = [replace(one, split="train") for one in classes(a=20, b=20)]
    vals = [sample(f"v{i}", "b", split="val") for i in range(5)]
    assert counts(split(parts + vals)) == {
        "train": {"a": 20, "b": 20},
        "val": {"b": 5},
        "test": {},
    }


def test_a_training_part_alone_gives_val_but_no_test():
    index = split([replace(one, split="train") for one in classes(a=20, b=20)])
    assert counts(index)["test"] == {}
    assert counts(index)["val"] == {"a": 3, "b": 3}


def test_names_and_order_of_files_do_not_matter():
    plain = classes(a=30, b=30)
    renamed = [replace(one, name=f"z{i}-{one.name[::-1]}") for i, one in enumerate(plain)]
    assert places(split(plain)) == places(split(renamed[::-1]))


def test_the_seed_changes_the_split():
    plain = classes(a=30, b=30)
    assert places(split(plain, seed=0)) != places(split(plain, seed=1))


def test_images_of_a_group_stay_together():
    samples = [sample(f"{i:03d}", "ab"[i % 2], group=f"g{i // 5}") for i in range(200)]
    index = split(samples)
    homes = {one.group: {o.split for o in index.samples if o.group == one.group} for one in samples}
    assert {len(parts) for parts in homes.values()} == {1}
    assert 20 <= len(index.part("val")) <= 40
    assert 20 <= len(index.part("test")) <= 40


def test_copies_stay_together_even_across_groups():
    samples = classes(a=20, b=20)
    samples += [sample(f"copy{i}", "a", digest="d-a/000", group=f"g{i}") for i in range(3)]
    samples += [sample(f"friend{i}", "a", group=f"g{i}") for i in range(3)]
    index = split(samples)
    together = [one.split for one in index.samples if one.name.startswith(("copy", "friend"))]
    assert len(set(together)) == 1


def test_a_class_in_fewer_groups_than_parts_stays_in_train_and_that_is_said():
    samples = classes(a=20)
    samples += [sample(f"b{i}", "b", group=f"g{i % 2}") for i in range(10)]
    index = split(samples)
    assert counts(index)["train"]["b"] == 10
    assert index.warnings[0] == "1 class has too few images for test and none there: b (10)"


def test_a_class_in_large_groups_still_reaches_every_part():
    samples = classes(a=20)
    samples += [sample(f"b{i}", "b", group=f"g{i % 3}") for i in range(30)]
    assert counts(split(samples))["val"]["b"] == 10
    assert counts(split(samples))["test"]["b"] == 10


def test_test_leaves_a_group_for_val_and_one_for_train():
    samples = classes(a=20)
    samples += [sample(f"b{i}", "b", group="big" if i < 18 else f"s{i}") for i in range(20)]
    index = split(samples)
    assert all(counts(index)[part].get("b") for part in ("train", "val", "test"))


def test_groups_of_several_classes_are_placed_as_a_whole():
    samples = [sample(f"{i:03d}", "abc"[i % 3], group=f"g{i // 6}") for i in range(90)]
    result = counts(split(samples))
    assert result["val"] == {"a": 4, "b": 4, "c": 4}
    assert result["test"] == {"a": 4, "b": 4, "c": 4}


def test_groups_that_a_source_has_torn_between_parts_are_said():
    parts = [replace(one, split="train") for one in classes(a=9, b=9)]
    parts[0] = replace(parts[0], group="g1")
    vals = [sample(f"v{i}", "b", split="val", group=f"g{i}") for i in range(3)]
    assert split(parts + vals).warnings == (
        "1 group stands in train and in another part, whose figures flatter: g1",
    )


def test_without_digests_names_decide():
    samples = [replace(one, digest=None) for one in classes(a=30, b=30)]
    assert counts(split(samples))["val"] == {"a": 4, "b": 4}


def test_too_few_images_for_any_validation_are_an_error():
    with pytest.raises(DataError) as caught:
        split(classes(a=2, b=2))
    assert caught.value.message == (
        f"no class of {ROOT} has enough images for a validation part: "
        "it takes 3 images, in as many groups as there are parts"
    )
    assert caught.value.hint == "add images, or give a folder val beside train"


def test_what_cannot_be_trained_on_is_refused():
    with pytest.raises(DataError, match="has one class only: a; telling classes apart needs two"):
        split(classes(a=20))


def test_classes_are_the_sorted_ones_of_train():
    assert split(classes(b=5, a=5, B=5)).classes == ("B", "a", "b")


def test_the_split_is_written_and_read_back(tmp_path):
    for one in classes(a=5, b=5):
        (tmp_path / one.name).parent.mkdir(exist_ok=True)
        (tmp_path / one.name).touch()
    samples = [replace(one, path=tmp_path / one.name) for one in classes(a=5, b=5)]
    samples[0] = replace(samples[0], group="g, 1", digest="d0")
    samples[1] = replace(samples[1], name="a/x\ry")
    (tmp_path / "a/x\ry").touch()
    index = replace(split(samples), root=tmp_path)
    write_split(index, tmp_path / "split.csv")
    with (tmp_path / "split.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "split", "group", "digest"]
    assert rows[0]["group"] == "g, 1"
    read = read_split(tmp_path / "split.csv")
    assert read.parts == {one.name: one.split for one in index.samples}
    assert {read.part_of(one.digest) for one in index.part("val")} == {"val"}
    assert read.part_of("another") is None


def test_a_copy_in_two_parts_is_of_the_one_that_is_asked_for(tmp_path):
    rows = ["path,split,digest", "a,test,d", "b,train,d", "c,val,e"]
    (tmp_path / "split.csv").write_text("\n".join([*rows, ""]))
    read = read_split(tmp_path / "split.csv")
    assert read.part_of("d", preferred="test") == "test"
    assert read.part_of("d", preferred="val") == read.part_of("d") == "train"


def reused(tmp_path, samples: list[Sample], *rows: str) -> Index:
    for one in samples:
        (tmp_path / one.name).parent.mkdir(exist_ok=True)
        (tmp_path / one.name).touch()
    (tmp_path / "split.csv").write_text("\n".join(["path,split", *rows, ""]))
    return reuse_split(replace(index_of(samples), root=tmp_path), tmp_path / "split.csv")


def test_a_split_is_used_again_and_new_photos_join_train(tmp_path):
    samples = [replace(one, split="test") for one in classes(a=4, b=3)]
    rows = ("a/000.jpg,val", "a/001.jpg,test", "b/000.jpg,train", "b/001.jpg,val", "b/002.jpg,test")
    samples = [replace(one, name=f"{one.name}.jpg") for one in samples]
    index = reused(tmp_path, samples, *rows)
    assert {one.name: one.split for one in index.samples} == {
        "a/000.jpg": "val",
        "a/001.jpg": "test",
        "a/002.jpg": "train",
        "a/003.jpg": "train",
        "b/000.jpg": "train",
        "b/001.jpg": "val",
        "b/002.jpg": "test",
    }
    assert index.warnings == (
        "1 class has one training image only: b",
        f"2 photos are not in the split {tmp_path / 'split.csv'}, taken for train: "
        "a/002.jpg, a/003.jpg",
    )


def test_a_split_of_photos_that_are_left_out_now_is_used_for_the_others(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/gone").touch()
    rows = ("a/000,train", "a/001,val", "b/000,train", "b/001,val", "a/gone,train")
    index = reused(tmp_path, classes(a=2, b=2), *rows)
    assert [one.split for one in index.samples] == ["train", "val", "train", "val"]
    assert index.classes == ("a", "b")


def test_a_split_without_validation_photos_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"the split .*split\.csv leaves no photo of .* for valid"):
        reused(tmp_path, classes(a=2, b=2), "a/000,test", "b/000,test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na,b\n", "DIR/split.csv is no split: 'split' is missing or unknown"),
        ("path,split\na,dev\n", "DIR/split.csv is no split: 'dev' is missing or unknown"),
    ],
)
def test_a_file_that_is_no_split_of_this_data_is_refused(tmp_path, text, message):
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        read_split(tmp_path / "split.csv")
    assert caught.value.message.replace(str(tmp_path), "DIR") == message


def test_a_split_that_is_missing_says_so(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the split .*split\.csv: .*No such file"):
        read_split(tmp_path / "split.csv")


def test_a_split_that_names_photos_of_another_folder_is_not_used(tmp_path):
    with pytest.raises(DataError, match=r"split\.csv names images that are not in .*: x/1\.jpg"):
        reused(tmp_path, classes(a=2, b=2), "a/000,val", "x/1.jpg,val")


@st.composite
def sources(draw):
    """Any classes, groups and copies; the first class always has singles enough to be carved."""
    extra = draw(
        st.lists(
            st.tuples(st.sampled_from("abc"), st.integers(0, 6), st.integers(0, 30)), max_size=60
        )
    )
    drawn = [
        sample(f"x{i}", label, group=f"g{group}" if group else None, digest=f"e{digest}")
        for i, (label, group, digest) in enumerate(extra)
    ]
    return [*classes(z=9), *classes(y=9), *drawn]


@settings(max_examples=60, deadline=None)
@given(sources(), st.integers(0, 5))
def test_for_any_source_the_rules_hold(samples, seed):
    index = split(samples, seed=seed)
    assert [one.name for one in index.samples] == sorted(one.name for one in samples)
    for key in ("group", "digest"):
        homes: dict[str, set[str | None]] = {}
        for one in index.samples:
            if getattr(one, key) is not None:
                homes.setdefault(getattr(one, key), set()).add(one.split)
        assert all(len(parts) == 1 for parts in homes.values())
    result = counts(index)
    for name, count in Counter(str(one.label) for one in samples).items():
        assert result["train"].get(name, 0) >= 1
        assert count >= 3 or result["train"][name] == count
    assert result["val"]["z"] == 1


def test_a_group_that_stays_in_train_keeps_its_classes_there():
    samples = [sample(f"{site}{i}", "common", group=site) for site in "ABC" for i in range(6)]
    samples += [sample(f"{site}-own", f"only {site}", group=site) for site in "AB"]
    index = split(samples, test=0)
    assert {one.group for one in index.part("val")} == {"C"}


def test_near_duplicates_are_parted_where_a_class_has_nothing_else():
    still = [sample(f"still/{i}", "still", picture=7) for i in range(10)]
    burst = [sample(f"burst/{i}", "burst", picture=i // 2) for i in range(20)]
    index = split([*still, *burst])
    assert all(found["still"] >= 1 for found in counts(index).values())
    assert index.warnings == (
        "1 class shows too few different pictures to keep near-duplicates together; they stand in "
        "several parts: still",
    )
    homes = {}
    for one in index.part("train") + index.part("val") + index.part("test"):
        if one.label == "burst":
            homes.setdefault(one.picture, set()).add(one.split)
    assert all(len(parts) == 1 for parts in homes.values())


def test_copies_and_groups_are_not_parted_for_it():
    copies = [sample(f"a/{i}", "a", picture=1, digest="same") for i in range(10)]
    grouped = [sample(f"b/{i}", "b", picture=2, group="tree") for i in range(10)]
    index = split([*copies, *grouped, *classes(c=10)])
    assert counts(index)["val"] == {"c": 2}
    assert "near-duplicates" not in "".join(index.warnings)
