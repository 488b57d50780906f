"""The floor of each job: the same arithmetic in bare loops, with no pipeline around it.

Decoding by Pillow, timm's transform for what is evaluated, the standard augmentation of `finetune`
for what is trained on, channels_last, AdamW. Where the backbone is frozen it is computed once,
convolutions and BatchNorms fused, and the head is one L-BFGS fit. Nothing is checked, chosen,
logged, kept or reported. `--keep` also keeps what was decoded, so that it is decoded once.
"""

import argparse
import copy
import json
import math
import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import nn
from torch.utils.data import DataLoader, Dataset

from finetune.runtime.allocator import freed_memory_kept
from finetune.torchvision_ops import register_missing_ops

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
RATES = {"last2": 1e-4, "all": 1e-4, "from scratch of the head": 1e-3}


def main() -> None:
    """Do one job, and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", choices=tuple(jobs.JOBS), required=True)
    parser.add_argument("--data", type=Path, required=True, help="train/ and val/, or photos")
    parser.add_argument("--weights", type=Path, help="a folder as timm saves it")
    parser.add_argument("--model", type=Path, help="the same of a trained model, to predict with")
    parser.add_argument("--precision", choices=tuple(PRECISIONS), default="fp32")
    parser.add_argument("--keep", action="store_true", help="decode each photo once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 1) - 1))
    parser.add_argument("--max-epochs", type=int, help="shortens every phase, to try things out")
    given = parser.parse_args()
    register_missing_ops()
    torch.manual_seed(given.seed)
    with freed_memory_kept():
        row = predict(given) if given.job == "predict" else train(given)
    print(json.dumps(row), flush=True)


class Photos(Dataset[Any]):
    """Photos as uint8 tensors (3, H, W), with a label."""

    def __init__(
        self, paths: list[Path], labels: list[int], change: Any, *, augments: bool, keep: bool
    ) -> None:
        self.paths, self.labels, self.change, self.augments = paths, labels, change, augments
        self.kept: dict[int, Any] | None = {} if keep else None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        photo = self._read(position)
        if self.augments:
            photo = torch.from_numpy(self.change(image=photo)["image"]).permute(2, 0, 1)
        return photo.contiguous(), self.labels[position]

    def _read(self, position: int) -> Any:
        """Decode a photo: to an array where it is augmented, else to a transformed tensor."""
        from PIL import Image

        if self.kept is not None and position in self.kept:
            return self.kept[position]
        image = Image.open(self.paths[position]).convert("RGB")
        photo = np.array(image) if self.augments else self.change(image)
        if self.kept is not None:
            self.kept[position] = photo
        return photo


class Bench:
    """The loaders and the normalisation of one job."""

    def __init__(self, given: argparse.Namespace, config: dict[str, Any]) -> None:
        self.given, self.config = given, config
        self.mean, self.std = (torch.tensor(config[n]).view(-1, 1, 1) for n in ("mean", "std"))

    def loader(self, paths: list[Path], labels: list[int], *, augments: bool = False) -> Any:
        """Build a loader of photos; it shuffles those that it augments."""
        from timm.data import create_transform

        evaluation = create_transform(**self.config, is_training=False, normalize=False)
        change = standard_augmentation(self.config["input_size"][-1]) if augments else evaluation
        return DataLoader(
            Photos(paths, labels, change, augments=augments, keep=self.given.keep),
            batch_size=self.given.batch_size,
            shuffle=augments,
            num_workers=self.given.workers,
            persistent_workers=self.given.workers > 0,
        )

    def part(self, name: str, *, augments: bool = False) -> Any:
        """Build the loader of `train` or `val`."""
        folder = self.given.data / name
        paths = jobs.list_photos(folder)
        classes = sorted(path.name for path in (self.given.data / "train").iterdir())
        labels = [classes.index(path.parent.name) for path in paths]
        return self.loader(paths, labels, augments=augments)

    def normalized(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise uint8 images, in channels_last."""
        images = images.to(torch.float32, memory_format=torch.channels_last)
        return images.div_(255).sub_(self.mean).div_(self.std)


def standard_augmentation(size: int) -> Any:
    """Write out what `augment: standard` is for a square input."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as A
    import cv2

    cv2.setNumThreads(0)
    change = (0.8, 1.2)
    return A.Compose(
        [
            A.RandomResizedCrop(
                size=(size, size),
                scale=(0.35, 1.0),
                interpolation=cv2.INTER_CUBIC,
                area_for_downscale="image",
            ),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(
                brightness=change, contrast=change, saturation=change, hue=(0.0, 0.0), p=0.8
            ),
        ]
    )


def train(given: argparse.Namespace) -> dict[str, Any]:
    """Train the phases of a job."""
    import timm

    num_classes = len(list((given.data / "train").iterdir()))
    network = timm.create_model(
        f"local-dir:{given.weights}", pretrained=True, num_classes=num_classes
    ).to(memory_format=torch.channels_last)
    bench = Bench(given, timm.data.resolve_model_data_config(network))
    phases = jobs.phases_of(given.job, given.max_epochs)
    photos = {"plain": bench.part("train"), "val": bench.part("val")}
    if phases[-1][0] == "all":
        photos["augmented"] = bench.part("train", augments=True)
    started = time.perf_counter()
    accuracies = []
    stored = None
    for what, epochs in phases:
        if what == "head":
            split = phases[-1][0] == "last2"
            stored, accuracy = fit_head(bench, network, photos, split=split)
            accuracies.append(accuracy)
        elif what == "last2":
            late = nn.Sequential(*late_part(network))
            train_loader = stored_loader(stored[0], given.batch_size, shuffle=True)
            val_loader = stored_loader(stored[1], given.batch_size)
            loaders = train_loader, val_loader
            accuracies += epochs_of(bench, late, loaders, epochs, rate=RATES["last2"])
        else:
            rate = RATES["all"] if len(phases) > 1 else RATES["from scratch of the head"]
            loaders = photos["augmented"], photos["val"]
            accuracies += epochs_of(bench, network, loaders, epochs, rate=rate)
    seconds = time.perf_counter() - started
    learning = [p for n, p in network.named_parameters() if jobs.learns(n, phases[-1][0])]
    return {
        "loop_seconds": round(seconds, 4),
        "best_accuracy": max(accuracies),
        "last_accuracy": accuracies[-1],
        "accuracies": accuracies,
        "images_seen": None,
        "drift": None,
        "trained_parameters": sum(parameter.numel() for parameter in learning),
        "versions": {"torch": torch.__version__},
    }


def early_part(network: Any) -> list[nn.Module]:
    """List what is frozen while the last two blocks train."""
    *early, block, _ = network.blocks
    return [network.conv_stem, network.bn1, *early, *block[:2]]


def late_part(network: Any) -> list[nn.Module]:
    """List the last two blocks and all after them."""
    block, last = network.blocks[-2:]
    ends = [network.conv_head, network.bn2, network.global_pool, network.classifier]
    return [block[2], last, *ends]


@torch.inference_mode()
def fit_head(
    bench: Bench, network: Any, photos: dict[str, Any], *, split: bool
) -> tuple[Any, float]:
    """Compute features once, fit the head; give what crosses to the last two blocks, if asked."""
    frozen = fused(copy.deepcopy(network).eval(), PRECISIONS[bench.given.precision])
    early, late = nn.Sequential(*early_part(frozen)), nn.Sequential(*late_part(frozen)[:-1])
    parts, stored = [], []
    for name in ("plain", "val"):
        rows: list[Any] = []
        for images, labels in photos[name]:
            crossing = early(bench.normalized(images).to(PRECISIONS[bench.given.precision]))
            rows.append((late(crossing).float(), labels, crossing if split else None))
        features, labels, crossing = zip(*rows, strict=True)
        parts.append((torch.cat(features).numpy(), torch.cat(labels).numpy()))
        if split:
            stored.append((torch.cat(crossing).clone(), torch.cat(labels)))
    weight, bias = fit(*parts[0], num_classes=network.num_classes)
    network.classifier.weight.copy_(torch.from_numpy(weight))
    network.classifier.bias.copy_(torch.from_numpy(bias))
    predicted = (parts[1][0] @ weight.T + bias).argmax(axis=1)
    return stored, float((predicted == parts[1][1]).mean())


def fit(features: Any, labels: Any, *, num_classes: int) -> tuple[Any, Any]:
    """Fit one L2 logistic regression by L-BFGS; scaling is folded into the weights."""
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    with threadpool_limits(1):
        model = LogisticRegression(C=0.01 * len(labels), max_iter=500)
        model.fit((features - mean) / scale, labels)
    rows, shift = model.coef_, model.intercept_
    if num_classes == 2:
        rows, shift = np.vstack([-rows, rows]) / 2, np.hstack([-shift, shift]) / 2
    weight = rows / scale
    return weight.astype(np.float32), (shift - weight @ mean).astype(np.float32)


def fused(network: nn.Module, precision: torch.dtype) -> nn.Module:
    """Fold every BatchNorm that directly follows a convolution into it."""
    from timm.layers import BatchNormAct2d
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for parent in list(network.modules()):
        children = list(parent.named_children())
        for (name, conv), (norm_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
                setattr(parent, name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, norm.act)
    return network.to(precision, memory_format=torch.channels_last)


def stored_loader(
    stored: tuple[torch.Tensor, torch.Tensor], size: int, shuffle: bool = False
) -> Any:
    """Give batches of stored activations, in a new order each time where they are shuffled."""

    class Batches:
        def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            values, labels = stored
            order = torch.randperm(len(labels)) if shuffle else torch.arange(len(labels))
            for chosen in order.split(size):
                yield values[chosen].to(memory_format=torch.channels_last), labels[chosen]

        def __len__(self) -> int:
            return math.ceil(len(stored[1]) / size)

    return Batches()


def epochs_of(
    bench: Bench, network: nn.Module, loaders: tuple[Any, Any], epochs: int, *, rate: float
) -> list[float]:
    """Train everything given for some epochs; give the validation accuracy after each."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.05)
    total = epochs * len(loaders[0])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step, total))
    accuracies = []
    for _ in range(epochs):
        network.train()
        for inputs, labels in loaders[0]:
            if len(labels) == 1:  # on which BatchNorm cannot train
                continue
            loss = nn.functional.cross_entropy(forward(bench, network, inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        accuracies.append(validate(bench, network, loaders[1]))
    return accuracies


def factor(step: int, total: int) -> float:
    """Give the share of the rate at a step: a tenth of the steps rise, then a half cosine."""
    rise = total // 10
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 + 0.5 * math.cos(math.pi * (step - rise) / max(1, total - rise))


@torch.no_grad()
def validate(bench: Bench, network: nn.Module, loader: Any) -> float:
    """Give the share that is predicted right."""
    network.eval()
    pairs = [(forward(bench, network, x).argmax(1), labels) for x, labels in loader]
    right = sum(int((predicted == labels).sum()) for predicted, labels in pairs)
    return right / sum(len(labels) for _, labels in pairs)


def forward(bench: Bench, network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Compute logits in float32 of photos or of stored activations."""
    images = bench.normalized(inputs) if inputs.dtype == torch.uint8 else inputs.float()
    precision = PRECISIONS[bench.given.precision]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        logits: torch.Tensor = network(images)
    return logits.float()


@torch.inference_mode()
def predict(given: argparse.Namespace) -> dict[str, Any]:
    """Predict every photo of a folder, fused and in channels_last."""
    import timm

    network = timm.create_model(f"local-dir:{given.model}", pretrained=True).eval()
    classes = json.loads((given.model / "config.json").read_text())["label_names"]
    bench = Bench(given, timm.data.resolve_model_data_config(network))
    precision = PRECISIONS[given.precision]
    network = fused(network, precision)
    paths = jobs.list_photos(given.data)
    photos = bench.loader(paths, [0] * len(paths))
    started = time.perf_counter()
    probs = torch.cat(
        [network(bench.normalized(images).to(precision)).float().softmax(1) for images, _ in photos]
    )
    seconds = time.perf_counter() - started
    names = [classes[index] for index in probs.argmax(1).tolist()]
    right = sum(path.parent.name == name for path, name in zip(paths, names, strict=True))
    return {
        "loop_seconds": round(seconds, 4),
        "best_accuracy": right / len(paths),
        "last_accuracy": right / len(paths),
        "images_seen": len(paths),
        "drift": None,
        "trained_parameters": 0,
        "versions": {"torch": torch.__version__},
    }


if __name__ == "__main__":
    main()
