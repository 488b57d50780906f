"""Plain PyTorch, as in its tutorial "Transfer Learning for Computer Vision".

Kept from the tutorial: torchvision's transforms, ImageFolder, four workers (as many as there are
cores, where there are fewer), SGD with momentum 0.9, a step of 0.1 after 7 epochs, the best weights
kept in a file and loaded at the end. Its rate of 0.001 is for batches of 4, so that batches of 32
have eight times as much (1706.02677). Size, mean and interpolation are those of the weights.
"""

import os
from pathlib import Path
from typing import Any

import common
import torch
from PIL import Image
from torch import nn, optim
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

RATE = 0.001 / 4  # of the tutorial, for each image of a batch
TUTORIAL_WORKERS = 4


def main() -> None:
    """Do one job."""
    given = common.parse("plain PyTorch")
    measured = common.Measured(given, "torchvision")
    predict(given, measured) if given.job == "predict" else train(given, measured)


def make_transforms(config: dict[str, Any]) -> dict[str, Any]:
    """Build the tutorial's transforms at the size of the weights."""
    size = config["input_size"][-1]
    kind = transforms.InterpolationMode(config["interpolation"])
    end = [transforms.ToTensor(), transforms.Normalize(config["mean"], config["std"])]
    crop = transforms.RandomResizedCrop(size, interpolation=kind)
    resize = transforms.Resize(int(size / config["crop_pct"]), interpolation=kind)
    return {
        "train": transforms.Compose([crop, transforms.RandomHorizontalFlip(), *end]),
        "val": transforms.Compose([resize, transforms.CenterCrop(size), *end]),
    }


def num_workers(given: Any) -> int:
    """Choose as many workers as the tutorial, and no more than cores."""
    if given.workers is not None:
        return int(given.workers)
    return min(TUTORIAL_WORKERS, os.cpu_count() or 1)


def train(given: Any, measured: common.Measured) -> None:
    """Train the phases of a job."""
    torch.manual_seed(given.seed)
    num_classes = len(list((given.data / "train").iterdir()))
    network = common.make_network(given.weights, num_classes)
    chosen = make_transforms(common.data_config(network))
    images = {part: datasets.ImageFolder(given.data / part, chosen[part]) for part in chosen}
    loaders = {
        part: DataLoader(
            images[part],
            batch_size=given.batch_size,
            shuffle=part == "train",
            num_workers=num_workers(given),
        )
        for part in images
    }
    measured.watch(network)
    phases = common.jobs.phases_of(given.job, given.max_epochs)
    with measured.loop():
        for number, (what, epochs) in enumerate(phases):
            if number and what == "all":
                measured.note_drift()
            parameters = common.set_learning(network, what)
            measured.note_trained(parameters)
            optimizer = optim.SGD(parameters, lr=RATE * given.batch_size, momentum=0.9)
            train_model(network, loaders, optimizer, epochs, measured, given.work)
    if phases[-1][0] != "all":
        measured.note_drift()
    if given.save:
        torch.save(
            {"weights": network.state_dict(), "classes": images["train"].classes}, given.save
        )
    measured.show()


def train_model(
    network: nn.Module,
    loaders: dict[str, Any],
    optimizer: optim.Optimizer,
    num_epochs: int,
    measured: common.Measured,
    work: Path,
) -> None:
    """Train as the tutorial does: train and validate each epoch, load the best at the end."""
    criterion = nn.CrossEntropyLoss()
    scheduler = lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    best_path, best = work / "best_model_params.pt", -1.0
    for _ in range(num_epochs):
        network.train()
        for inputs, labels in loaders["train"]:
            optimizer.zero_grad()
            loss = criterion(network(inputs), labels)
            loss.backward()
            optimizer.step()
            measured.images_seen += len(labels)
        scheduler.step()
        accuracy = validate(network, loaders["val"])
        measured.accuracies.append(accuracy)
        if accuracy > best:
            best = accuracy
            torch.save(network.state_dict(), best_path)
    network.load_state_dict(torch.load(best_path, weights_only=True))


def validate(network: nn.Module, loader: Any) -> float:
    """Give the share of validation photos that are predicted right."""
    network.eval()
    correct = 0
    with torch.no_grad():
        for inputs, labels in loader:
            correct += int((network(inputs).argmax(1) == labels).sum())
    return correct / len(loader.dataset)


class Photos(Dataset[Any]):
    """Photos without labels."""

    def __init__(self, paths: list[Path], transform: Any) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> Any:
        return self.transform(Image.open(self.paths[position]).convert("RGB"))


def predict(given: Any, measured: common.Measured) -> None:
    """Predict every photo of a folder from the saved weights."""
    saved = torch.load(given.model, weights_only=True)
    network = common.make_network(given.weights, len(saved["classes"]))
    network.load_state_dict(saved["weights"])
    network.eval()
    transform = make_transforms(common.data_config(network))["val"]
    paths = common.jobs.list_photos(given.data)
    loader = DataLoader(
        Photos(paths, transform), batch_size=given.batch_size, num_workers=num_workers(given)
    )
    with measured.loop(), torch.no_grad():
        probs = torch.cat([network(inputs).softmax(1) for inputs in loader])
    measured.images_seen = len(probs)
    names = [saved["classes"][index] for index in probs.argmax(1).tolist()]
    measured.accuracies = [common.share_right(paths, names)]
    measured.show()


if __name__ == "__main__":
    main()
