"""Stored activations are what was computed, or are missing: whatever happens to the files."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.model.store import (
    ActivationStore,
    Budgets,
    StoreFullError,
    StoreKey,
    choose_place,
    image_id,
    num_bytes_per_image,
    open_store,
)
from finetune.model.store_key import device_kind, library_versions
from finetune.runtime.records import RecordMemory
from finetune.runtime.space import GIB
from finetune.runtime.stores import list_stores

KEY = StoreKey("weights 1", "{}")
SHAPES = ((3, 4, 5), (7,))
OPEN = """
import sys, torch
from pathlib import Path
from finetune.model.store import *
store = open_store(StoreKey("weights 1", "{}"), [(1000,)], label="x", folder=Path(sys.argv[1]))
def value(number): return torch.full((1000,), float(number)) + torch.arange(1000)
def add(numbers):
    store.add([image_id(str(n)) for n in numbers], [torch.stack([value(n) for n in numbers])])
"""


def values(number: int, shapes: tuple[tuple[int, ...], ...] = SHAPES) -> list[torch.Tensor]:
    """What is computed of image `number`: no two alike, negative and fractional."""
    generator = torch.Generator().manual_seed(number)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def ids(numbers: list[int]) -> list[bytes]:
    return [image_id(str(number)) for number in numbers]


def add(store: ActivationStore, numbers: list[int]) -> None:
    store.add(
        ids(numbers), [torch.stack(parts) for parts in zip(*map(values, numbers), strict=True)]
    )


def is_right(store: ActivationStore, numbers: list[int]) -> bool:
    expected = [torch.stack(parts) for parts in zip(*map(values, numbers), strict=True)]
    return all(map(torch.equal, store.read(ids(numbers)), expected))


def start(code: str, folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", OPEN + code, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def file_of(folder: Path, name: str) -> Path:
    (path,) = folder.glob(f"*/{name}")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "activations"


@pytest.fixture
def opened(folder: Path) -> Iterator[Callable[..., ActivationStore]]:
    """Open a store in the folder; closed after the test."""
    with ExitStack() as stack:

        def open_one(key: StoreKey = KEY, **options: object) -> ActivationStore:
            given = {"shapes": SHAPES, "label": "test", "folder": folder, **options}
            return stack.enter_context(open_store(key, **given))  # type: ignore[arg-type]

        yield open_one


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_what_was_added_is_read_in_any_order_and_repeated(
    opened: Callable[..., ActivationStore], place: str
) -> None:
    store = opened(place=place)
    add(store, [0, 1, 2, 3])
    add(store, [4, 5])
    assert store.missing(ids([5, 9, 0, 8])) == [1, 3]
    assert is_right(store, [5, 0, 3, 3, 1, 5])
    assert (store.num_images, store.place.value) == (6, place)


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_what_was_located_is_read_again_and_again(
    opened: Callable[..., ActivationStore], place: str
) -> None:
    store = opened(place=place)
    add(store, [5, 3, 8])
    places = store.locate(ids([3, 5, 8]))
    add(store, [9])
    assert all(map(torch.equal, store.read_at(places[[2, 0]]), store.read(ids([8, 3]))))


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_an_empty_batch_is_a_batch(opened: Callable[..., ActivationStore], place: str) -> None:
    store = opened(place=place)
    store.add([], [torch.empty(0, 3, 4, 5), torch.empty(0, 7)])
    assert [part.shape for part in store.read([])] == [(0, 3, 4, 5), (0, 7)]
    assert store.missing([]) == []


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_an_id_keeps_what_it_has(opened: Callable[..., ActivationStore], place: str) -> None:
    store = opened(place=place)
    add(store, [1])
    tensors = [torch.stack(parts) for parts in zip(values(2), values(3), values(4), strict=True)]
    store.add([*ids([1]), *ids([2]), *ids([2])], tensors)
    first, _ = store.read(ids([1, 2]))
    assert torch.equal(first, torch.stack([values(1)[0], values(3)[0]]))
    assert store.num_images == 2


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_what_is_not_stored_cannot_be_read(
    opened: Callable[..., ActivationStore], place: str
) -> None:
    store = opened(place=place)
    with pytest.raises(KeyError):
        store.read(ids([1]))


def test_a_second_run_reads_what_the_first_stored(folder: Path) -> None:
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        add(store, [0, 1, 2])
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        assert store.missing(ids([0, 1, 2, 3])) == [3]
        assert is_right(store, [2, 0, 1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_every_bit_comes_back(
    opened: Callable[..., ActivationStore], dtype: str, memory_format: str, place: str
) -> None:
    kind = getattr(torch, dtype)
    store = opened(replace(KEY, dtype=dtype, memory_format=memory_format), place=place)
    special = torch.tensor([torch.inf, -torch.inf, torch.nan, -0.0, 1e-40, 65504.0, 1 / 3])
    tensors = [torch.randn(2, 3, 4, 5).to(kind), special.expand(2, 7).to(kind)]
    store.add(ids([1, 2]), tensors)
    for found, expected in zip(store.read(ids([1, 2])), tensors, strict=True):
        bits = found.contiguous().view(torch.uint8)
        assert torch.equal(bits, expected.contiguous().view(torch.uint8))
        assert found.dtype == kind


def test_channels_last_comes_back_as_channels_last(opened: Callable[..., ActivationStore]) -> None:
    store = opened(replace(KEY, memory_format="channels_last"))
    add(store, [1, 2])
    assert is_right(store, [2, 1])
    assert store.read(ids([1, 2]))[0].is_contiguous(memory_format=torch.channels_last)


def test_tensors_are_cast_to_the_dtype_of_the_key(opened: Callable[..., ActivationStore]) -> None:
    store = opened(replace(KEY, dtype="bfloat16"), shapes=[(7,)])
    value = torch.randn(1, 7, requires_grad=True)
    store.add(ids([1]), [value])
    assert torch.equal(store.read(ids([1]))[0], value.detach().bfloat16())


def test_tensors_of_other_shapes_are_refused(opened: Callable[..., ActivationStore]) -> None:
    message = r"takes tensors of shapes \[\(1, 3, 4, 5\), \(1, 7\)\], not \[\(1, 7\)\]"
    with pytest.raises(ValueError, match=message):
        opened().add(ids([1]), [torch.zeros(1, 7)])


def test_shapes_without_values_are_refused(opened: Callable[..., ActivationStore]) -> None:
    with pytest.raises(ValueError, match=r"nothing to store in shapes \(\(0, 3\),\)"):
        opened(shapes=[(0, 3)])


@pytest.mark.parametrize(
    "change",
    [
        {"computation": "weights 2"},
        {"preprocessing": '{"size":2}'},
        {"dtype": "float16"},
        {"memory_format": "channels_last"},
        {"precision": "bf16"},
        {"device": "cuda"},
        {"versions": "{}"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_opens_an_empty_store(
    opened: Callable[..., ActivationStore], change: dict[str, str]
) -> None:
    add(opened(), [1])
    assert opened(replace(KEY, **change)).missing(ids([1])) == [0]


def test_other_shapes_open_an_empty_store(opened: Callable[..., ActivationStore]) -> None:
    add(opened(), [1])
    assert opened(shapes=[(5, 4, 3), (7,)]).missing(ids([1])) == [0]


def test_the_id_is_of_content_and_view() -> None:
    found = {image_id("ab", 0), image_id("ab", 1), image_id("ab0", 0), image_id("a", 0)}
    assert {len(one) for one in found} == {16}
    assert len(found) == 4


def test_the_key_names_every_library_that_computes() -> None:
    found = json.loads(library_versions())
    assert found["torch build"] == torch.__version__
    assert all(found[name] for name in ("finetune", "torch", "timm", "pillow", "albumentations"))
    assert device_kind("cpu").startswith("cpu ")


@pytest.mark.parametrize("header", ['{"format": 0, "label": "old"}', "{", "[]", ""])
def test_a_store_of_another_format_is_replaced(folder: Path, header: str) -> None:
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        add(store, [1])
    file_of(folder, "store.json").write_text(header)
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        assert store.missing(ids([1])) == [0]
        add(store, [1])
        assert is_right(store, [1])
    assert [info.label for info in list_stores(folder)] == ["test"]


def test_a_store_in_use_is_not_replaced(
    opened: Callable[..., ActivationStore], folder: Path
) -> None:
    first = opened()
    add(first, [1])
    file_of(folder, "store.json").write_text("{}")
    second = opened()
    assert second.place.value == "memory"
    assert second.place.reason.endswith("another process uses what stands there")
    assert is_right(first, [1])


@pytest.mark.parametrize("byte", [0, 100, 267 * 4 - 1, 3 * 268 + 11])
def test_a_flipped_byte_makes_a_record_missing_not_wrong(folder: Path, byte: int) -> None:
    numbers = list(range(8))
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        add(store, numbers)
    path = file_of(folder, "records.bin")
    content = bytearray(path.read_bytes())
    content[byte] ^= 4
    path.write_bytes(content)
    damaged = byte // 268
    for _ in range(2):
        with open_store(KEY, SHAPES, label="test", folder=folder) as store:
            assert store.missing(ids(numbers)) == [damaged]
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        with pytest.raises(KeyError):
            store.read(ids(numbers))
        add(store, [damaged])
        assert is_right(store, numbers)
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        assert store.missing(ids(numbers)) == []
        assert is_right(store, numbers)


@pytest.mark.parametrize("byte", [0, 16, 20, 3 * 24 + 5])
def test_a_flipped_byte_of_the_index_makes_a_record_missing(folder: Path, byte: int) -> None:
    numbers = list(range(8))
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        add(store, numbers)
    path = file_of(folder, "ids.bin")
    content = bytearray(path.read_bytes())
    content[byte] ^= 4
    path.write_bytes(content)
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        assert store.missing(ids(numbers)) == [byte // 24]
        add(store, numbers)
        assert is_right(store, numbers)


def test_swapped_records_are_missing(folder: Path) -> None:
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        add(store, [0, 1, 2])
    path = file_of(folder, "records.bin")
    content = path.read_bytes()
    path.write_bytes(content[268:536] + content[:268] + content[536:])
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        assert store.missing(ids([0, 1, 2])) == [0, 1]


@pytest.mark.parametrize(
    ("name", "length", "left"),
    [
        ("ids.bin", 0, 0),
        ("ids.bin", 24 * 5 + 23, 5),
        ("records.bin", 0, 0),
        ("records.bin", 268 * 3 + 1, 3),
    ],
)
def test_a_file_cut_short_loses_what_was_cut(
    folder: Path, name: str, length: int, left: int
) -> None:
    numbers = list(range(8))
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        add(store, numbers)
    os.truncate(file_of(folder, name), length)
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        assert store.missing(ids(numbers)) == list(range(left, 8))
        add(store, numbers)
        assert is_right(store, numbers)
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        assert store.missing(ids(numbers)) == []
        assert is_right(store, numbers)


def test_a_tail_of_zeros_is_passed_over(folder: Path) -> None:
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        add(store, [0, 1])
    os.truncate(file_of(folder, "ids.bin"), 24 * 6)
    os.truncate(file_of(folder, "records.bin"), 268 * 6)
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        assert store.missing([*ids([0, 1, 2]), bytes(16)]) == [2, 3]
        add(store, [2])
        assert is_right(store, [0, 1, 2])


@pytest.mark.slow
@pytest.mark.parametrize(("call", "share"), [(3, 0.4), (3, 1.0), (4, 0.4), (4, 0.99)])
def test_a_writer_killed_in_mid_write_leaves_what_was_there(
    folder: Path, call: int, share: float
) -> None:
    """The third write is that of the second batch's records, the fourth that of their entries."""
    code = f"""
import os, signal
calls, write = [], os.pwrite
def die(file, data, offset):
    calls.append(offset)
    if len(calls) < {call}:
        return write(file, data, offset)
    write(file, data[: int(len(data) * {share})], offset)
    os.kill(os.getpid(), signal.SIGKILL)
os.pwrite = die
add([0, 1, 2])
add([3, 4, 5])
"""
    process = start(code, folder)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    with open_store(KEY, [(1000,)], label="x", folder=folder) as store:
        absent = store.missing(ids(list(range(6))))
        whole = int(share * 3) if call == 4 else 0
        assert absent == [3, 4, 5][whole:]
        store.add(ids([7, 8]), [torch.full((2, 1000), 7.5)])
    with open_store(KEY, [(1000,)], label="x", folder=folder) as store:
        assert store.missing(ids([*range(6), 7, 8])) == absent
        there = [number for number in range(6) if number not in absent]
        expected = torch.tensor(there)[:, None] + torch.arange(1000)
        assert torch.equal(store.read(ids(there))[0], expected.float())
        assert torch.equal(store.read(ids([8, 7]))[0], torch.full((2, 1000), 7.5))


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_right_records(folder: Path) -> None:
    """Six times: killed while it appends; what is there is right, and the next goes on."""
    code = """
import random
while True:
    numbers = [random.randrange(100_000) for _ in range(8)]
    add(numbers)
    print("added", flush=True)
"""
    clock = random.Random(0)
    counts = []
    for _ in range(6):
        process = start(code, folder)
        assert process.stdout is not None
        assert process.stdout.readline() == "added\n"
        time.sleep(clock.uniform(0.05, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with open_store(KEY, [(1000,)], label="x", folder=folder) as store:
            everything = list(range(100_000))
            absent = set(store.missing(ids(everything)))
            there = [number for number in everything if number not in absent]
            (found,) = store.read(ids(there))
            expected = torch.tensor(there)[:, None] + torch.arange(1000)
            assert torch.equal(found, expected.float())
            counts.append(len(there))
    assert counts == sorted(counts)
    assert counts[-1] > counts[0] >= 8
    assert not [info for info in list_stores(folder) if info.is_in_use]


@pytest.mark.slow
def test_a_full_disk_is_said_once_and_what_was_stored_stays(folder: Path) -> None:
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({4000 * 10 + 1234}, resource.RLIM_INFINITY))
said = []
for number in range(40):
    try:
        add([2 * number, 2 * number + 1])
    except StoreFullError as error:
        said.append(error.message)
numbers = range(80)
absent = store.missing([image_id(str(n)) for n in numbers])
for number in set(numbers) - set(absent):
    assert torch.equal(store.read([image_id(str(number))])[0][0], value(number)), number
print(said, len(absent), store.is_full)
"""
    out, err = start(code, folder).communicate(timeout=120)
    assert err == ""
    assert out == "['no more activations are stored: File too large'] 70 True\n"
    assert file_of(folder, "records.bin").stat().st_size == 40_000
    with open_store(KEY, [(1000,)], label="x", folder=folder) as store:
        assert store.missing(ids(list(range(10)))) == []
        store.add(ids([10]), [torch.zeros(1, 1000)])
        assert store.missing(ids([10])) == []


@pytest.mark.slow
def test_two_processes_that_add_the_same_ids_are_both_right(folder: Path) -> None:
    code = """
import random
numbers = list(range(600))
random.Random(sys.stdin.readline()).shuffle(numbers)
for first in range(0, 600, 8):
    add(numbers[first:first + 8])
assert store.missing([image_id(str(n)) for n in range(600)]) == []
(found,) = store.read([image_id(str(n)) for n in range(600)])
assert torch.equal(found, torch.stack([value(n) for n in range(600)]))
print(store.num_images)
"""
    command = [sys.executable, "-c", OPEN + code, str(folder)]
    both = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process, order in zip(both, ("one\n", "other\n"), strict=True):
        assert process.stdin is not None
        process.stdin.write(order)
        process.stdin.flush()
    answers = [process.communicate(timeout=120) for process in both]
    assert answers == [("600\n", "")] * 2
    assert file_of(folder, "ids.bin").stat().st_size == 600 * 24


def test_what_another_process_adds_is_seen(opened: Callable[..., ActivationStore]) -> None:
    first, second = opened(), opened()
    add(first, [1, 2])
    assert second.missing(ids([1, 2, 3])) == [2]
    add(second, [2, 3])
    assert first.missing(ids([1, 2, 3])) == []
    assert is_right(first, [3, 2, 1])


def test_a_forked_worker_reads_and_leaves_the_store_to_its_parent(
    opened: Callable[..., ActivationStore], folder: Path
) -> None:
    store = opened()
    add(store, [1, 2])
    child = os.fork()
    if child == 0:
        os._exit(0 if is_right(store, [2, 1]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    add(store, [3])
    assert is_right(store, [1, 2, 3])
    assert [info.is_in_use for info in list_stores(folder)] == [True]
    store.close()
    assert [info.is_in_use for info in list_stores(folder)] == [False]


def test_the_store_unused_for_longest_makes_room(opened: Callable[..., ActivationStore]) -> None:
    budgets = Budgets(disk_bytes=3000)
    for name, used in (("oldest", 100.0), ("older", 200.0)):
        store = opened(replace(KEY, computation=name), label=name, budgets=budgets)
        add(store, [1, 2, 3])
        path = Path(store.place.reason.removeprefix("in "))
        store.close()
        os.utime(path / "store.json", (used, used))
    held = opened(replace(KEY, computation="held"), label="held", budgets=budgets)
    add(held, [1, 2])
    assert {info.label for info in list_stores(path.parent)} == {"older", "held"}


def test_a_store_in_use_never_makes_room(opened: Callable[..., ActivationStore]) -> None:
    first = opened(replace(KEY, computation="first"), budgets=Budgets(disk_bytes=3000))
    add(first, [1, 2, 3, 4])
    second = opened(budgets=Budgets(disk_bytes=3000))
    message = "no more activations are stored: the cache is at its budget of 2.9 KiB"
    with pytest.raises(StoreFullError, match=message):
        add(second, [1, 2, 3, 4])
    assert is_right(first, [1, 2, 3, 4])
    assert second.missing(ids([1])) == [0]


def test_a_cache_that_cannot_be_written_is_replaced_by_memory(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with open_store(KEY, SHAPES, label="test", folder=blocked / "activations") as store:
        add(store, [1, 2])
        assert is_right(store, [2, 1])
        assert store.place.value == "memory"
        assert store.place.reason == (
            f"in memory: cannot write {blocked / 'activations'}: Not a directory"
        )


def test_a_store_that_can_only_be_read_is_replaced_by_memory(folder: Path) -> None:
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        add(store, [1])
    path = file_of(folder, "ids.bin")
    path.unlink()
    path.mkdir()
    with open_store(KEY, SHAPES, label="test", folder=folder) as store:
        assert store.place.value == "memory"
    assert [info.is_in_use for info in list_stores(folder)] == [False]


def test_memory_has_a_budget(
    opened: Callable[..., ActivationStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.model.store.free_memory", lambda: 12 * 268)
    store = opened(place="memory", budgets=Budgets(memory_share=0.25))
    add(store, [1, 2])
    with pytest.raises(StoreFullError, match="they would exceed the budget of 804 B of memory"):
        add(store, [3, 4])
    add(store, [5])
    assert store.missing(ids([1, 2, 3, 4, 5])) == [2, 3, 4]
    assert is_right(store, [2, 1])


def test_without_a_budget_nothing_is_written_nor_removed(
    opened: Callable[..., ActivationStore], folder: Path
) -> None:
    add(opened(replace(KEY, computation="earlier")), [1])
    store = opened(budgets=Budgets(disk_bytes=0))
    add(store, [1, 2])
    assert store.place.reason == "in memory: the budget on disk is 0 B"
    assert is_right(store, [2, 1])
    assert [info.num_records for info in list_stores(folder)] == [1]


def test_memory_that_cannot_be_had_is_said() -> None:
    records = RecordMemory(1000, budget_bytes=1 << 60)
    message = "no more activations are stored: 1048576.0 TiB of memory cannot be had"
    with pytest.raises(StoreFullError, match=message):
        records.append(ids([1]), np.zeros((1, 1000), dtype=np.uint8))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="memory is read from /proc")
def test_what_was_read_is_given_back(
    opened: Callable[..., ActivationStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.runtime.records._RESIDENT_BYTES", 2 << 20)
    store = opened(shapes=[(1 << 18,)])  # 1 MiB an image
    for number in range(24):
        store.add(ids([number]), [torch.full((1, 1 << 18), float(number))])
    grown = []
    for number in range(24):
        assert store.read(ids([number]))[0][0, 5] == number
        lines = Path("/proc/self/smaps").read_text().split("records.bin")[1].splitlines()
        grown.append(int(next(line for line in lines if line.startswith("Rss:")).split()[1]))
    assert max(grown) <= 4 * 1024


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.integers(0, 12), max_size=5)),
        st.tuples(st.just("read"), st.lists(st.integers(0, 12), max_size=5)),
        st.tuples(st.just("reopen"), st.just([])),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(actions=ACTIONS)
def test_any_sequence_behaves_as_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, list[int]]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    store = open_store(KEY, SHAPES, label="test", folder=folder)
    known: set[int] = set()
    for action, numbers in actions:
        if action == "reopen":
            store.close()
            store = open_store(KEY, SHAPES, label="test", folder=folder)
        elif action == "add":
            if numbers:
                add(store, numbers)
            known |= set(numbers)
        absent = [i for i, number in enumerate(numbers) if number not in known]
        assert store.missing(ids(numbers)) == absent
        there = [number for number in numbers if number in known]
        assert not there or is_right(store, there)
    store.close()


@pytest.mark.parametrize(
    ("num_images", "free_disk", "free_memory", "place", "reason"),
    [
        (1_000, 50, 8, "disk", "4.9 MiB on disk, within the budget of 10 GiB"),
        (
            1_000_000,
            5,
            16,
            "memory",
            "4.8 GiB in memory, of 8.0 GiB that may be used: the disk has 5.0 GiB free, of which "
            "2.0 GiB stay free",
        ),
        (
            1_000,
            0,
            8,
            "memory",
            "4.9 MiB in memory, of 4.0 GiB that may be used: the cache cannot be written",
        ),
        (
            10_000_000,
            500,
            8,
            "none",
            "48 GiB do not fit: the budget on disk is 10 GiB, and 4.0 GiB of memory may be used",
        ),
    ],
)
def test_the_place_is_chosen_with_a_reason(
    num_images: int, free_disk: int, free_memory: int, place: str, reason: str
) -> None:
    choice = choose_place(
        num_images,
        1,
        num_bytes_per_image([(1280,)], "float32"),
        free_disk=free_disk * GIB,
        free_memory=free_memory * GIB,
        budgets=Budgets(),
    )
    assert (choice.value, choice.reason) == (place, reason)


def test_without_a_budget_on_disk_the_place_is_memory() -> None:
    choice = choose_place(
        1000,
        1,
        1024,
        free_disk=100 * GIB,
        free_memory=8 * GIB,
        budgets=Budgets(disk_bytes=0, memory_share=0.25),
    )
    reason = "1000 KiB in memory, of 2.0 GiB that may be used: the budget on disk is 0 B"
    assert (choice.value, choice.reason) == ("memory", reason)


def test_views_count_in_the_choice() -> None:
    free = {"free_disk": 100 * GIB, "free_memory": 0}
    chosen = [
        choose_place(1000, views, 2 * GIB // 1000, budgets=Budgets(), **free).value
        for views in (1, 4, 6)
    ]
    assert chosen == ["disk", "disk", "none"]
