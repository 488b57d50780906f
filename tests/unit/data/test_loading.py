"""Loading: the same images, labels and errors whatever process decodes them."""

import errno
import random
import sys
import threading
import time
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.components.augment import NoAugment, StandardAugment
from finetune.components.preprocess import InputSpec, Preprocessing
from finetune.data import loading
from finetune.data.content import digest_of
from finetune.data.decode import decode
from finetune.data.index import index_source
from finetune.data.loading import (
    EpochSampler,
    EvalImages,
    TrainImages,
    make_loader,
    make_pass,
)
from finetune.data.reading import LoadingError
from finetune.errors import DataError, FinetuneError
from finetune.types import Sample

LIMIT = 10_000
READ = partial(decode, max_pixels=LIMIT)
SPEC = InputSpec(16, 16, "bicubic")
CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def samples(tiny_folder) -> tuple[Sample, ...]:
    return index_source(tiny_folder).samples[::3]


def evals(samples: tuple[Sample, ...], limit: int = LIMIT) -> EvalImages:
    transform = Preprocessing(input_size=(3, 16, 16)).transform()
    return EvalImages(samples, transform, CLASSES, partial(decode, max_pixels=limit))


def trains(samples: tuple[Sample, ...], limit: int = LIMIT) -> TrainImages:
    augment = StandardAugment().build(SPEC)
    return TrainImages(samples, augment, CLASSES, 7, partial(decode, max_pixels=limit))


def gather(loader: object) -> list[torch.Tensor]:
    """All batches of a loader, joined: images, labels, positions."""
    batches = list(loader)
    return [torch.cat([batch[part] for batch in batches]) for part in range(3)]


def error_of(loader: object) -> DataError:
    """The error that ends a pass over a loader."""
    iterator = iter(loader)
    with pytest.raises(DataError) as caught:
        list(iterator)
    if loader.num_workers:
        # The error keeps the workers alive in a cycle, which PyTorch takes 10 seconds to undo.
        iterator._shutdown_workers()
    return caught.value


def test_eval_images_are_the_transform_of_the_decoded_file(samples):
    image, label, position = evals(samples)[5]
    assert image.dtype == torch.uint8
    assert image.shape == (3, 16, 16)
    assert (CLASSES[label], position) == (samples[5].label, 5)


def test_a_label_that_is_unknown_is_minus_one(samples):
    dataset = EvalImages(samples, Preprocessing().transform(), ("other",), READ)
    assert dataset[0][1] == -1


def test_a_sample_without_a_label_is_minus_one(samples):
    bare = Sample(path=samples[0].path, name="x")
    assert EvalImages((bare,), Preprocessing().transform(), CLASSES, READ)[0][1] == -1


@pytest.mark.parametrize("make", [evals, trains])
def test_workers_change_nothing(samples, make):
    alone = gather(make_loader(make(samples), batch_size=5, workers=0))
    helped = gather(make_loader(make(samples), batch_size=5, workers=2))
    assert all(torch.equal(one, other) for one, other in zip(alone, helped, strict=True))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_one_look_gives_the_same_whatever_decodes(samples, workers):
    alone = gather(make_loader(evals(samples), batch_size=5, workers=0))
    looked = gather(make_pass(evals(samples), batch_size=5, workers=workers))
    assert all(torch.equal(one, other) for one, other in zip(alone, looked, strict=True))


def test_a_single_worker_is_a_thread_that_is_one_batch_ahead(samples):
    dataset, threads = evals(samples), []
    decode_one = dataset.__getitem__
    dataset_type = type(
        "Watched",
        (EvalImages,),
        {"__getitem__": lambda self, row: threads.append(threading.get_ident()) or decode_one(row)},
    )
    dataset.__class__ = dataset_type
    batches = iter(make_pass(dataset, batch_size=5, workers=1))
    next(batches)
    for _ in range(1000):
        if len(threads) >= 10:
            break
        time.sleep(0.01)
    assert len(threads) == 10
    assert set(threads) != {threading.get_ident()}
    batches.close()
    assert not [one for one in threading.enumerate() if one.ident in threads]


def test_an_error_of_the_thread_is_that_of_the_file(samples):
    looked = make_pass(evals(samples, limit=10), batch_size=5, workers=1)
    with pytest.raises(LoadingError, match=samples[0].name):
        list(looked)


def test_epochs_reach_workers_that_live_on(samples):
    seen = []
    for workers in (0, 2):
        dataset = trains(samples)
        loader = make_loader(dataset, batch_size=5, workers=workers)
        for stage_index, epoch in ((0, 0), (0, 1), (1, 0)):
            dataset.begin_epoch(stage_index, epoch)
            seen.append(gather(loader)[0])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert all(torch.equal(seen[number], seen[number + 3]) for number in range(3))


def test_an_image_is_the_same_in_any_order(samples):
    dataset = trains(samples)
    first = dataset[4][0]
    dataset[2]
    assert torch.equal(dataset[4][0], first)


def test_an_image_drawn_again_is_changed_in_another_way(samples):
    dataset = trains(samples)
    again = dataset[4 + len(samples)]
    assert again[1:] == dataset[4][1:]
    assert not torch.equal(again[0], dataset[4][0])


@pytest.mark.parametrize("workers", [0, 2])
def test_random_states_of_the_process_stay_as_they_were(samples, workers):
    loader = make_loader(trains(samples), batch_size=5, workers=workers)
    before = (random.getstate(), str(np.random.get_state()), torch.get_rng_state())
    gather(loader)
    after = (random.getstate(), str(np.random.get_state()), torch.get_rng_state())
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_an_order_is_a_permutation_that_follows_from_seed_stage_and_epoch():
    orders = {}
    for seed, stage_index, epoch in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)):
        sampler = EpochSampler(50, seed)
        sampler.begin_epoch(stage_index, epoch)
        orders[seed, stage_index, epoch] = tuple(sampler)
        assert tuple(sampler) == orders[seed, stage_index, epoch]
        assert sorted(sampler) == list(range(50))
    assert len(set(orders.values())) == 4
    assert len(EpochSampler(50, 0)) == 50


def test_weights_draw_in_proportion_and_number_repetitions():
    drawn = list(EpochSampler(1000, 0, weights=[0.0] * 500 + [1.0] * 499 + [501.0]))
    positions = [index % 1000 for index in drawn]
    assert min(positions) >= 500
    assert 400 < positions.count(999) < 600
    assert len(set(drawn)) == 1000
    assert max(drawn) // 1000 == positions.count(999) - 1


def test_a_prepared_loader_of_accelerate_keeps_the_order(samples):
    from accelerate import Accelerator

    sampler = EpochSampler(len(samples), 0)
    loader = make_loader(evals(samples), batch_size=5, workers=0, sampler=sampler)
    prepared = Accelerator(cpu=True).prepare_data_loader(loader)
    for epoch in range(3):
        sampler.begin_epoch(0, epoch)
        assert gather(prepared)[2].tolist() == list(sampler)


@pytest.mark.parametrize(
    ("num", "batch_size", "drop_single", "sizes"),
    [
        (11, 5, True, [5, 5]),
        (11, 5, False, [5, 5, 1]),
        (12, 5, True, [5, 5, 2]),
        (10, 5, True, [5, 5]),
        (1, 5, True, [1]),
        (3, 1, True, [1, 1, 1]),
        (3, 8, True, [3]),
    ],
)
def test_a_last_batch_of_one_image_can_be_dropped(samples, num, batch_size, drop_single, sizes):
    loader = make_loader(
        evals(samples[:num]), batch_size=batch_size, workers=0, drop_single=drop_single
    )
    assert [len(batch[1]) for batch in loader] == sizes


def test_more_workers_than_cores_are_not_started(samples, monkeypatch):
    monkeypatch.setattr(loading, "available_cpus", lambda: 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make_loader(evals(samples), batch_size=5, workers=64).num_workers == 1


def test_batches_are_pinned_for_cuda_alone(samples):
    assert not make_loader(evals(samples), batch_size=5, workers=0).pin_memory
    assert make_loader(evals(samples), batch_size=5, workers=0, device="cuda:1").pin_memory


@pytest.fixture
def vanished(samples, tmp_path) -> tuple[Sample, ...]:
    """Samples of which the fourth is no longer what it was."""
    path = tmp_path / "gone.png"
    path.write_bytes(b"")
    return (*samples[:3], Sample(path=path, name="gone.png", label="red"), *samples[3:])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("make", [evals, trains])
def test_a_file_that_became_unreadable_is_named_from_any_process(vanished, make, workers):
    error = error_of(make_loader(make(vanished), batch_size=2, workers=workers))
    assert type(error) is LoadingError
    assert error.message == f"{vanished[3].path} can no longer be read: empty file"
    assert error.hint == "it was readable when the run began; put it back and run again"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("make", [evals, trains])
def test_a_file_that_holds_another_photo_is_named_from_any_process(samples, make, workers):
    with samples[1].path.open("rb") as file:
        other = digest_of(file)
    changed = [replace(samples[0], digest=other), *samples[1:]]
    error = error_of(make_loader(make(changed), batch_size=2, workers=workers))
    assert type(error) is LoadingError
    assert error.message == f"{samples[0].path} has changed since the run began"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_augmentation_that_fails_names_the_image(samples, workers):
    def fail(image: np.ndarray, *, seed: int) -> np.ndarray:
        raise DataError("it fails", hint="do else")

    dataset = TrainImages(samples, fail, CLASSES, 0, READ)
    error = error_of(make_loader(dataset, batch_size=2, workers=workers))
    assert (error.message, error.hint) == (f"{samples[0].name}: it fails", "do else")


def test_an_image_beyond_the_limit_is_named(samples):
    with pytest.raises(LoadingError, match="has 1280 pixels, the limit is 99"):
        evals(samples, limit=99)[0]


def test_none_gives_training_images_as_evaluation_sees_them(samples):
    preprocessing = Preprocessing(input_size=(3, 16, 16))
    plain = TrainImages(samples, NoAugment().build(preprocessing.spec), CLASSES, 0, READ)
    assert torch.equal(plain[3][0], evals(samples)[3][0])


def test_a_worker_keeps_opencv_to_one_thread(monkeypatch):
    import cv2

    before = cv2.getNumThreads()
    loading._start_worker(0)
    assert cv2.getNumThreads() == 1
    cv2.setNumThreads(before)
    monkeypatch.delitem(sys.modules, "cv2")
    loading._start_worker(0)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (4, "CMYK")])
def test_batches_have_the_channels_that_the_network_takes(tmp_path, channels, mode):
    for name in CLASSES:
        (tmp_path / name).mkdir()
        Image.new(mode, (20, 24), (50,) * channels).save(tmp_path / name / "0.tif")
    found = index_source(tmp_path).samples
    preprocessing = Preprocessing(input_size=(channels, 16, 16))
    read = partial(READ, channels=channels)
    plain = EvalImages(found, preprocessing.transform(), CLASSES, read)
    augment = StandardAugment().build(preprocessing.spec)
    changed = TrainImages(found, augment, CLASSES, 7, read)
    for dataset in (plain, changed):
        images, labels, _ = gather(make_loader(dataset, batch_size=2, workers=0))
        assert (images.shape, images.dtype) == ((3, channels, 16, 16), torch.uint8)
        assert labels.tolist() == [0, 1, 2]


def test_an_image_that_lost_a_band_in_mid_run_is_named(tmp_path):
    (tmp_path / "red").mkdir()
    Image.new("RGB", (20, 24)).save(tmp_path / "red" / "0.png")
    found = index_source(tmp_path).samples
    transform = Preprocessing(input_size=(4, 16, 16)).transform()
    dataset = EvalImages(found, transform, CLASSES, partial(READ, channels=4))
    with pytest.raises(LoadingError) as caught:
        dataset[0]
    assert caught.value.message == (
        f"{tmp_path / 'red' / '0.png'} can no longer be read: has 3 bands, the network takes 4"
    )


def test_without_shared_memory_no_worker_is_started(monkeypatch, samples):
    monkeypatch.setattr(loading, "free_shared_memory", lambda: 16 << 10)
    images = EvalImages(samples, Preprocessing().transform(), CLASSES, READ)
    make_loader(images, batch_size=4, workers=0)
    with pytest.raises(FinetuneError, match="16 KiB are free in /dev/shm") as caught:
        make_loader(images, batch_size=4, workers=1)
    assert caught.value.hint.startswith("without further processes: run --set runtime.workers=0")


def test_a_worker_that_finds_no_room_is_a_sentence():
    with (
        pytest.raises(FinetuneError, match="no room left in /dev/shm"),
        loading.killed_workers_named(),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_not_taken_for_full_shared_memory():
    with pytest.raises(OSError, match=r"photo\.jpg"), loading.killed_workers_named():
        raise OSError(errno.ENOSPC, "No space left on device", "photo.jpg")
