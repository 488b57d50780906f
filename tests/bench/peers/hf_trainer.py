"""Hugging Face `Trainer`, as in the guide to image classification and the example script.

`datasets`' image folder, the model through `TimmWrapper`, the processor's own transforms as in
`run_image_classification.py`, an evaluation and a checkpoint each epoch and the best one loaded at
the end, as in the guide. AdamW, its linear schedule, its rate of 5e-5 for what was pretrained and
its number of workers (none) are the defaults of `TrainingArguments`. A head alone would hardly move
at that rate: it learns at 1e-3, AdamW's own default.
"""

from typing import Any

import common
import numpy as np
import torch
from datasets import load_dataset
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    Trainer,
    TrainingArguments,
    pipeline,
    set_seed,
)
from transformers.utils import logging

HEAD_RATE = 1e-3


def main() -> None:
    """Do one job."""
    given = common.parse("Hugging Face Trainer")
    logging.set_verbosity_error()
    measured = common.Measured(given, "transformers", "datasets", "torchvision", "accelerate")
    predict(given, measured) if given.job == "predict" else train(given, measured)


def load_photos(given: Any, processor: Any) -> Any:
    """Load the image folder, transformed as it is read."""
    photos = load_dataset(
        "imagefolder", data_dir=str(given.data), cache_dir=str(given.work / "datasets")
    )

    def with_transform(change: Any) -> Any:
        def apply(batch: dict[str, Any]) -> dict[str, Any]:
            batch["pixel_values"] = [change(image.convert("RGB")) for image in batch["image"]]
            return batch

        return apply

    train, val = photos["train"], photos["validation"]
    train.set_transform(with_transform(processor.train_transforms))
    val.set_transform(with_transform(processor.val_transforms))
    return train, val


def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Make a batch, as the example script does."""
    return {
        "pixel_values": torch.stack([example["pixel_values"] for example in examples]),
        "labels": torch.tensor([example["label"] for example in examples]),
    }


def score(outputs: Any) -> dict[str, float]:
    """Compute the accuracy."""
    logits, labels = outputs
    return {"accuracy": float((np.argmax(logits, axis=1) == labels).mean())}


def train(given: Any, measured: common.Measured) -> None:
    """Train the phases of a job."""
    set_seed(given.seed)
    processor = AutoImageProcessor.from_pretrained(given.weights)
    train_photos, val_photos = load_photos(given, processor)
    names = train_photos.features["label"].names
    model = AutoModelForImageClassification.from_pretrained(
        given.weights,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        ignore_mismatched_sizes=True,
    )
    measured.watch(model.timm_model)
    phases = common.jobs.phases_of(given.job, given.max_epochs)
    for number, (what, epochs) in enumerate(phases):
        measured.note_trained(common.set_learning(model.timm_model, what))
        trainer = Trainer(
            model=model,
            args=arguments(given, number, what, epochs),
            data_collator=collate,
            train_dataset=train_photos,
            eval_dataset=val_photos,
            compute_metrics=score,
            processing_class=processor,
        )
        with measured.loop():
            trainer.train()
        history = trainer.state.log_history
        measured.accuracies += [row["eval_accuracy"] for row in history if "eval_accuracy" in row]
        measured.images_seen += epochs * len(train_photos)
        if what != "all":
            measured.note_drift()
    if given.save:
        trainer.save_model(str(given.save))
    measured.show()


def arguments(given: Any, number: int, what: str, epochs: int) -> TrainingArguments:
    """Give the arguments of one phase."""
    return TrainingArguments(
        output_dir=str(given.work / f"phase-{number}"),
        remove_unused_columns=False,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        learning_rate=HEAD_RATE if what == "head" else 5e-5,
        per_device_train_batch_size=given.batch_size,
        per_device_eval_batch_size=given.batch_size,
        num_train_epochs=epochs,
        dataloader_num_workers=given.workers or 0,
        seed=given.seed,
        disable_tqdm=True,
        report_to="none",
    )


def predict(given: Any, measured: common.Measured) -> None:
    """Predict every photo of a folder by the pipeline."""
    classify = pipeline("image-classification", model=str(given.model))
    paths = common.jobs.list_photos(given.data)
    with measured.loop():
        answers = classify(
            [str(path) for path in paths],
            batch_size=given.batch_size,
            num_workers=given.workers or 0,
        )
    measured.images_seen = len(answers)
    names = [max(answer, key=lambda row: row["score"])["label"] for answer in answers]
    measured.accuracies = [common.share_right(paths, names)]
    measured.show()


if __name__ == "__main__":
    main()
