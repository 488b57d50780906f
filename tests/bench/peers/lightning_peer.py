"""Lightning with `BackboneFinetuning`, as in the documentation of that callback.

The module has a `backbone` and a `head`; Adam at 1e-3 begins with the head alone; the callback
freezes the backbone before training and adds it at a tenth of the rate, twice as much each epoch
until it is equal. Two last blocks are unfrozen by a `BaseFinetuning` of our own, as the example of
fine-tuning in Lightning's repository does. Checkpoints, logger and the look at validation before
training are its defaults; it has as many workers as Lightning's own warning asks for.
"""

import os
import warnings
from typing import Any

import common
import lightning as L
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, BaseFinetuning, Callback
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy
from torchvision.datasets import ImageFolder

RATE = 1e-3
NEVER = 1_000_000


class TransferLearningModel(L.LightningModule):
    """A pretrained backbone and a linear head."""

    def __init__(self, weights: str, classes: list[str], everything: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.backbone = common.make_network(weights, 0)
        self.head = nn.Linear(self.backbone.num_features, len(classes))
        self.loss = nn.CrossEntropyLoss()
        self.accuracy = MulticlassAccuracy(len(classes), average="micro")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(images))

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        images, labels = batch
        loss = self.loss(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        images, labels = batch
        logits = self(images)
        self.accuracy(logits, labels)
        self.log("val_loss", self.loss(logits, labels))
        self.log("val_accuracy", self.accuracy, prog_bar=True)

    def predict_step(self, batch: Any, _: int) -> torch.Tensor:
        return self(batch).softmax(1)

    def configure_optimizers(self) -> Any:
        learning = self if self.hparams.everything else self.head
        return torch.optim.Adam(learning.parameters(), lr=RATE)


class LastBlocksFinetuning(BaseFinetuning):
    """Freezes the backbone, and unfreezes its two last blocks at an epoch."""

    def __init__(self, unfreeze_at_epoch: int) -> None:
        super().__init__()
        self.unfreeze_at_epoch = unfreeze_at_epoch

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.backbone, train_bn=False)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == self.unfreeze_at_epoch:
            backbone = pl_module.backbone
            last = [backbone.blocks[5][2], backbone.blocks[6], backbone.conv_head, backbone.bn2]
            self.unfreeze_and_add_param_group(last, optimizer)


class FrozenBackboneFinetuning(BackboneFinetuning):
    """`BackboneFinetuning` whose frozen BatchNorms ask for no gradient either (`--frozen-bn`)."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.backbone, train_bn=False)


class Record(Callback):
    """Keeps the accuracy of each epoch, and the drift when everything is unfrozen."""

    def __init__(self, measured: common.Measured, unfreezes_all_at: int | None) -> None:
        self.measured, self.unfreezes_all_at = measured, unfreezes_all_at

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == self.unfreezes_all_at:
            self.measured.note_drift()

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.measured.accuracies.append(float(pl_module.accuracy.compute()))
            self.measured.images_seen += len(trainer.train_dataloader.dataset)


class Photos(Dataset[Any]):
    """Photos without labels."""

    def __init__(self, paths: list[Any], transform: Any) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> Any:
        return self.transform(Image.open(self.paths[position]).convert("RGB"))


def main() -> None:
    """Do one job."""
    given = common.parse("Lightning")
    warnings.filterwarnings("ignore")
    measured = common.Measured(given, "lightning", "torchvision", "torchmetrics")
    predict(given, measured) if given.job == "predict" else train(given, measured)


def make_loader(images: Any, given: Any, *, shuffle: bool = False) -> Any:
    """Build a loader."""
    workers = max(1, (os.cpu_count() or 1) - 1) if given.workers is None else given.workers
    return DataLoader(images, batch_size=given.batch_size, shuffle=shuffle, num_workers=workers)


def make_callback(given: Any, first_epochs: int) -> Any:
    """Choose the callback of a job."""
    if given.job == "last2":
        return LastBlocksFinetuning(first_epochs)
    kind = FrozenBackboneFinetuning if given.frozen_bn else BackboneFinetuning
    return kind(unfreeze_backbone_at_epoch=NEVER if given.job == "head" else first_epochs)


def train(given: Any, measured: common.Measured) -> None:
    """Train the phases of a job in one fit."""
    L.seed_everything(given.seed, verbose=False)
    classes = sorted(path.name for path in (given.data / "train").iterdir())
    model = TransferLearningModel(str(given.weights), classes, everything=given.job == "all")
    config = common.data_config(model.backbone)
    make_transform = common.timm.data.create_transform
    images = {
        part: ImageFolder(given.data / part, make_transform(**config, is_training=part == "train"))
        for part in ("train", "val")
    }
    measured.watch(model.backbone)
    phases = common.jobs.phases_of(given.job, given.max_epochs)
    record = Record(measured, phases[0][1] if given.job == "full" else None)
    callbacks = [] if given.job == "all" else [make_callback(given, phases[0][1])]
    trainer = L.Trainer(
        max_epochs=sum(epochs for _, epochs in phases),
        callbacks=[record, *callbacks],
        default_root_dir=given.work,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loaders = (make_loader(images["train"], given, shuffle=True), make_loader(images["val"], given))
    with measured.loop():
        trainer.fit(model, *loaders)
    if phases[-1][0] != "all":
        measured.note_drift()
    (optimizer,) = trainer.optimizers
    measured.note_trained(
        parameter for group in optimizer.param_groups for parameter in group["params"]
    )
    if given.save:
        trainer.save_checkpoint(given.save)
    measured.show()


def predict(given: Any, measured: common.Measured) -> None:
    """Predict every photo of a folder from the checkpoint."""
    model = TransferLearningModel.load_from_checkpoint(given.model)
    transform = common.timm.data.create_transform(
        **common.data_config(model.backbone), is_training=False
    )
    paths = common.jobs.list_photos(given.data)
    trainer = L.Trainer(default_root_dir=given.work, enable_progress_bar=False, logger=False)
    with measured.loop():
        rows = trainer.predict(model, make_loader(Photos(paths, transform), given))
    probs = torch.cat(rows)
    measured.images_seen = len(probs)
    names = [model.hparams.classes[index] for index in probs.argmax(1).tolist()]
    measured.accuracies = [common.share_right(paths, names)]
    measured.show()


if __name__ == "__main__":
    main()
