"""An epoch of steps: batches that memory cannot hold, losses that are no numbers."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from finetune.errors import TrainingError
from finetune.train.loop import EpochSeed, Stepper, Tally, train_epoch
from finetune.train.loss import CrossEntropy

NUM_IMAGES, BATCH_SIZE = 24, 8
SEED = EpochSeed(seed=0, stage_index=1, epoch=2, stage="full")
MakeStepper = Callable[..., Stepper]


class Narrow(nn.Module):
    """A network for whose batches of more than so many images there is no memory."""

    def __init__(self, most: int, error: RuntimeError) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3))
        self.most, self.error = most, error

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.most:
            raise self.error
        logits: torch.Tensor = self.layers(images)
        return logits


@pytest.fixture
def data() -> TensorDataset:
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(NUM_IMAGES, 3, 2, 2, generator=draw)
    labels = torch.arange(NUM_IMAGES) % 3
    return TensorDataset(images, labels, torch.arange(NUM_IMAGES))


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def make_stepper(warnings: list[str]) -> MakeStepper:
    def make(
        *,
        most: int = BATCH_SIZE,
        weight: torch.Tensor | None = None,
        error: RuntimeError | None = None,
        accumulate: int = 1,
    ) -> Stepper:
        torch.manual_seed(0)
        lack = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        network = Narrow(most, lack)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
        prepared, prepared_optimizer = accelerator.prepare(network, optimizer)
        return Stepper(
            accelerator=accelerator,
            network=prepared,
            optimizer=prepared_optimizer,
            schedule=LambdaLR(optimizer, lambda step: 1.0),
            loss=CrossEntropy(weight, label_smoothing=0.1),
            normalize=lambda images: images,
            names=[f"{number}.jpg" for number in range(NUM_IMAGES)],
            warn=warnings.append,
        )

    return make


def loader(
    data: TensorDataset, batch_size: int = BATCH_SIZE
) -> DataLoader[tuple[torch.Tensor, ...]]:
    return DataLoader(data, batch_size=batch_size)


def weights_of(stepper: Stepper) -> torch.Tensor:
    return torch.cat([param.detach().flatten() for param in stepper.network.parameters()])


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 3.0])])
@pytest.mark.parametrize(("most", "pieces"), [(4, 2), (3, 4), (1, 8)])
def test_a_batch_that_does_not_fit_steps_as_if_it_had(
    make_stepper: MakeStepper,
    data: TensorDataset,
    warnings: list[str],
    most: int,
    pieces: int,
    weight: torch.Tensor | None,
) -> None:
    whole, cut = make_stepper(weight=weight), make_stepper(most=most, weight=weight)
    tallies = Tally(), Tally()
    for stepper, tally in zip((whole, cut), tallies, strict=True):
        train_epoch(stepper, loader(data), SEED, tally=tally)
    assert tallies[1].num_pieces == pieces
    assert tallies[1].num_steps == tallies[0].num_steps == 3
    assert tallies[1].loss == pytest.approx(tallies[0].loss, rel=1e-6)
    # Sums of another order: equal to what fp32 rounds.
    torch.testing.assert_close(weights_of(cut), weights_of(whole), rtol=1e-5, atol=1e-7)
    assert warnings[-1] == (
        "no memory for a batch of 8 images in stage 'full': from here on it is computed in "
        f"{pieces} pieces, and steps as before"
    )


def test_what_the_allocator_of_a_cpu_says_counts_as_well(
    make_stepper: MakeStepper, data: TensorDataset
) -> None:
    error = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …")
    tally = Tally()
    train_epoch(make_stepper(most=4, error=error), loader(data), SEED, tally=tally)
    assert tally.num_pieces == 2


def test_pieces_are_remembered_by_a_later_epoch(
    make_stepper: MakeStepper, data: TensorDataset, warnings: list[str]
) -> None:
    train_epoch(make_stepper(most=4), loader(data), SEED, tally=Tally(num_pieces=2))
    assert warnings == []


def test_no_memory_for_one_image_ends_the_stage(
    make_stepper: MakeStepper, data: TensorDataset
) -> None:
    stepper = make_stepper(most=0)
    with pytest.raises(
        TrainingError, match="no memory for a batch of 8 images in stage 'full'"
    ) as (caught):
        train_epoch(stepper, loader(data), SEED, tally=Tally())
    assert caught.value.hint == "--set training.batch_size=4 --set training.accumulate=2"


def normalised(stepper: Stepper) -> Stepper:
    """Put a normalisation that follows its batches into the network."""
    network = stepper.network
    assert isinstance(network, Narrow)
    network.layers[2] = nn.BatchNorm1d(5)
    return stepper


@pytest.mark.parametrize("num_last", [2, 3, 5])
def test_no_piece_of_one_image_is_left_to_a_normalisation(
    make_stepper: MakeStepper, data: TensorDataset, warnings: list[str], num_last: int
) -> None:
    few = TensorDataset(*(tensor[: BATCH_SIZE + num_last] for tensor in data.tensors))
    tally = Tally()
    train_epoch(normalised(make_stepper(most=3)), loader(few), SEED, tally=tally)
    assert (tally.num_pieces, tally.num_steps) == (4, 2)
    assert warnings[-1].endswith(
        "in 4 pieces, and steps as before; batch statistics are those of a piece"
    )


def test_memory_for_one_image_alone_is_too_little_for_a_normalisation(
    make_stepper: MakeStepper, data: TensorDataset
) -> None:
    with pytest.raises(TrainingError, match="no memory for a batch of 8 images"):
        train_epoch(normalised(make_stepper(most=1)), loader(data), SEED, tally=Tally())


def test_a_batch_of_one_image_that_a_normalisation_refuses_is_a_sentence(
    make_stepper: MakeStepper, data: TensorDataset
) -> None:
    with pytest.raises(TrainingError, match="a batch of one image, of which") as caught:
        train_epoch(normalised(make_stepper()), loader(data, 1), SEED, tally=Tally())
    assert caught.value.hint == ("--set training.batch_size=8, or --set stages.1.batch_norm=frozen")


def test_another_error_is_not_taken_for_a_lack_of_memory(
    make_stepper: MakeStepper, data: TensorDataset
) -> None:
    stepper = make_stepper(most=4, error=RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train_epoch(stepper, loader(data), SEED, tally=Tally())


def test_a_loss_that_is_no_number_stops_before_the_step_and_names_the_images(
    make_stepper: MakeStepper, data: TensorDataset
) -> None:
    stepper = make_stepper()
    data.tensors[0][10] = float("nan")  # in the second batch
    tally, seen = Tally(), []
    with pytest.raises(TrainingError) as caught:
        train_epoch(
            stepper,
            loader(data),
            SEED,
            tally=tally,
            after_step=lambda: seen.append(weights_of(stepper)),
        )
    assert caught.value.message == (
        "the loss is nan in stage 'full', epoch 2, step 2; training stopped before that step; "
        "its images: 8.jpg, 9.jpg, 10.jpg, 11.jpg, 12.jpg and 3 more"
    )
    assert caught.value.hint == "lower the stage's lr, or give training.clip_norm: 1.0"
    assert tally.num_batches == len(seen) == 1
    assert torch.equal(weights_of(stepper), seen[0])


def test_a_gradient_that_is_no_number_stops_as_well(
    make_stepper: MakeStepper, data: TensorDataset
) -> None:
    stepper = make_stepper()
    first = next(stepper.network.parameters())
    first.register_hook(lambda gradient: gradient * float("inf"))
    before = weights_of(stepper)
    with pytest.raises(TrainingError, match="the gradient is not finite in stage 'full', epoch 2"):
        train_epoch(stepper, loader(data), SEED, tally=Tally())
    assert torch.equal(weights_of(stepper), before)


def test_as_many_batches_as_allowed_are_left_out_and_named(
    make_stepper: MakeStepper, data: TensorDataset, warnings: list[str]
) -> None:
    data.tensors[0][10] = float("nan")
    clean = TensorDataset(*(torch.cat([part[:8], part[16:]]) for part in data.tensors))
    without, leaving_out = make_stepper(), replace(make_stepper(), max_skipped=1)
    tally = Tally()
    train_epoch(leaving_out, loader(data), SEED, tally=tally)
    train_epoch(without, loader(clean), SEED, tally=Tally())
    assert (tally.num_skipped, tally.num_steps, tally.num_images) == (1, 2, 16)
    assert torch.equal(weights_of(leaving_out), weights_of(without))
    assert warnings[0].startswith("the loss is nan in stage 'full', epoch 2, step 2; the batch is")
    data.tensors[0][20] = float("inf")
    with pytest.raises(TrainingError, match="step 3"):
        train_epoch(replace(make_stepper(), max_skipped=1), loader(data), SEED, tally=Tally())


def test_a_batch_that_is_left_out_moves_no_statistics(
    make_stepper: MakeStepper, data: TensorDataset
) -> None:
    data.tensors[0][10] = float("nan")
    clean = TensorDataset(*(torch.cat([part[:8], part[16:]]) for part in data.tensors))
    without, leaving_out = (
        normalised(replace(make_stepper(), max_skipped=number)) for number in (0, 1)
    )
    for stepper, photos in ((leaving_out, data), (without, clean)):
        train_epoch(stepper, loader(photos), SEED, tally=Tally())
    found, expected = (dict(stepper.network.named_buffers()) for stepper in (leaving_out, without))
    assert {name.rpartition(".")[2] for name in found} == {
        "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip
    assert all(torch.equal(found[name], expected[name]) for name in expected)


class Scaler:
    """What a scaler of fp16 says, on a machine without a GPU."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return loss

    def unscale_(self, optimizer: object) -> None:
        pass

    def get_scale(self) -> float:
        return self.factor


@pytest.mark.parametrize(("scale", "max_skipped"), [(2.0, 0), (0.5, 3), (0.5, 2)])
def test_steps_that_a_scaler_skips_do_not_count_and_end_the_run_where_no_scale_helps(
    make_stepper: MakeStepper,
    data: TensorDataset,
    monkeypatch: pytest.MonkeyPatch,
    scale: float,
    max_skipped: int,
) -> None:
    stepper = replace(make_stepper(), max_skipped=max_skipped)
    monkeypatch.setattr(type(stepper.accelerator), "optimizer_step_was_skipped", True)
    monkeypatch.setattr(stepper.accelerator, "scaler", Scaler(scale))
    tally = Tally()
    ends = pytest.raises(TrainingError, match="is not finite at any scale in stage 'full'")
    with ends if max_skipped == 2 else nullcontext():
        train_epoch(stepper, loader(data), SEED, tally=tally)
    assert tally.num_steps == 0
    assert tally.num_skipped == (max_skipped if scale < 1 else 0)


@pytest.mark.parametrize("num_last", [1, 2, 3])
def test_a_last_batch_of_fewer_images_than_pieces_is_cut_into_as_many_as_it_has(
    make_stepper: MakeStepper, data: TensorDataset, num_last: int
) -> None:
    few = TensorDataset(*(tensor[: BATCH_SIZE + num_last] for tensor in data.tensors))
    whole, cut = make_stepper(), make_stepper(most=2)
    tallies = Tally(), Tally()
    for stepper, tally in zip((whole, cut), tallies, strict=True):
        train_epoch(stepper, loader(few), SEED, tally=tally)
    assert (tallies[1].num_pieces, tallies[1].num_skipped) == (4, 0)
    assert tallies[1].loss == pytest.approx(tallies[0].loss, rel=1e-6)
    torch.testing.assert_close(weights_of(cut), weights_of(whole), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 3.0])])
@pytest.mark.parametrize("num_images", [24, 19, 10, 9])  # full groups; short batches; short groups
def test_accumulated_batches_step_as_the_whole_batch(
    make_stepper: MakeStepper, data: TensorDataset, num_images: int, weight: torch.Tensor | None
) -> None:
    some = TensorDataset(*(tensor[:num_images] for tensor in data.tensors))
    tallies = Tally(), Tally()
    whole = replace(make_stepper(weight=weight), clip_norm=0.5)
    train_epoch(whole, loader(some), SEED, tally=tallies[0])
    parts = replace(make_stepper(weight=weight, accumulate=2), clip_norm=0.5)
    # Accelerate steps at the end of a loader that it has prepared.
    prepared = parts.accelerator.prepare(loader(some, BATCH_SIZE // 2))
    train_epoch(parts, prepared, SEED, tally=tallies[1])
    assert tallies[1].num_steps == tallies[0].num_steps == -(-num_images // BATCH_SIZE)
    assert tallies[1].num_images == num_images
    torch.testing.assert_close(weights_of(parts), weights_of(whole), rtol=1e-5, atol=1e-7)


def test_of_accumulated_batches_the_one_that_is_not_finite_alone_is_left_out(
    make_stepper: MakeStepper, data: TensorDataset, warnings: list[str]
) -> None:
    data.tensors[0][5] = float("nan")  # in the second batch, at whose end a step is due
    clean = TensorDataset(*(torch.cat([part[:4], part[8:]]) for part in data.tensors))
    leaving_out = replace(make_stepper(accumulate=2), max_skipped=1)
    tally = Tally()
    train_epoch(leaving_out, loader(data, 4), SEED, tally=tally)
    without = make_stepper()
    first, rest = (
        TensorDataset(*(part[rows] for part in clean.tensors))
        for rows in (slice(0, 4), slice(4, None))
    )
    for part, size in ((first, 4), (rest, 8)):
        train_epoch(without, loader(part, size), SEED, tally=Tally())
    assert (tally.num_skipped, tally.num_steps, tally.num_images) == (1, 3, 20)
    torch.testing.assert_close(weights_of(leaving_out), weights_of(without), rtol=1e-5, atol=1e-7)
    assert warnings[0].endswith("the batch is left out; its images: 4.jpg, 5.jpg, 6.jpg, 7.jpg")


def test_a_gradient_of_several_batches_that_is_no_number_names_them_all(
    make_stepper: MakeStepper, data: TensorDataset, warnings: list[str]
) -> None:
    stepper = replace(make_stepper(accumulate=2), max_skipped=2)
    calls = []

    def break_first(gradient: torch.Tensor) -> torch.Tensor:
        calls.append(gradient)
        return gradient * (float("inf") if len(calls) == 1 else 1.0)

    next(stepper.network.parameters()).register_hook(break_first)
    tally = Tally()
    train_epoch(stepper, loader(data, 4), SEED, tally=tally)
    assert (tally.num_skipped, tally.num_steps, tally.num_images) == (2, 2, 16)
    assert warnings[0].endswith(
        "the 2 batches of this step are left out; its images: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg "
        "and 3 more"
    )
