"""fastai, as in its book and documentation: `vision_learner`, `fine_tune`, `fit_one_cycle`.

Its defaults throughout: Adam, one cycle, the rate of `vision_learner` and of `fine_tune`, random
crops and `aug_transforms` as in the second chapter of the book, BatchNorm trained in frozen layers
(`--frozen-bn` ends that). The head is one linear layer, as the others have it; `--own-head` takes
fastai's, which is deeper.
"""

from typing import Any

import common
from fastai.callback.core import Callback
from fastai.vision.all import (
    ImageDataLoaders,
    RandomResizedCrop,
    accuracy,
    aug_transforms,
    load_learner,
    params,
    set_seed,
    vision_learner,
)
from torch import nn


class Record(Callback):
    """Keeps the accuracy of each epoch."""

    order = 60  # after fastai's own Recorder

    def __init__(self, measured: common.Measured) -> None:
        self.measured = measured

    def after_batch(self) -> None:
        """Count training photos: fastai leaves out what does not fill a last batch."""
        self.measured.images_seen += len(self.learn.yb[0]) if self.learn.training else 0

    def after_epoch(self) -> None:
        """Keep the last figure that the recorder has."""
        self.measured.accuracies.append(float(self.learn.recorder.values[-1][-1]))


def main() -> None:
    """Do one job."""
    given = common.parse("fastai")
    measured = common.Measured(given, "fastai", "torchvision")
    predict(given, measured) if given.job == "predict" else train(given, measured)


def split(model: nn.Module) -> list[Any]:
    """Group the parameters: the early blocks, the last two blocks, the head."""
    body, head = model[0].model, model[1]
    named = list(body.named_parameters())
    early = [value for name, value in named if not common.jobs.learns(name, "last2")]
    late = [value for name, value in named if common.jobs.learns(name, "last2")]
    return [early, late, params(head)]


def two_groups(model: nn.Module) -> list[Any]:
    """Group the parameters as fastai does for timm's models: body and head."""
    return [params(model[0]), params(model[1])]


def make_learner(given: Any) -> Any:
    """Build the loaders and the learner."""
    options = {} if given.workers is None else {"num_workers": given.workers}
    plain = common.make_network(given.weights, 0)
    size = common.data_config(plain)["input_size"][-1]
    dls = ImageDataLoaders.from_folder(
        given.data,
        train="train",
        valid="val",
        seed=given.seed,
        item_tfms=RandomResizedCrop(size, min_scale=0.5),
        batch_tfms=aug_transforms(),
        bs=given.batch_size,
        **options,
    )
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(plain.num_features, dls.c)
    )
    return vision_learner(
        dls,
        f"local-dir:{given.weights}",
        metrics=accuracy,
        custom_head=None if given.own_head else head,
        splitter=split if given.job == "last2" else two_groups,
        train_bn=not given.frozen_bn,
        path=given.work,
    )


def train(given: Any, measured: common.Measured) -> None:
    """Train the phases of a job."""
    set_seed(given.seed, reproducible=True)
    learner = make_learner(given)
    measured.watch(learner.model[0].model)
    learner.add_cb(Record(measured))
    phases = common.jobs.phases_of(given.job, given.max_epochs)
    with measured.loop(), learner.no_bar(), learner.no_logging():
        if given.job == "head":
            learner.fit_one_cycle(phases[0][1])
        elif given.job == "all":
            learner.unfreeze()
            learner.fit_one_cycle(phases[0][1])
        else:
            fit_two_phases(learner, phases, measured)
    if phases[-1][0] != "all":
        measured.note_drift()
    measured.note_trained(p for p in learner.model.parameters() if p.requires_grad)
    if given.save:
        learner.remove_cb(Record)
        learner.export(given.save)
    measured.show()


def fit_two_phases(learner: Any, phases: Any, measured: common.Measured) -> None:
    """Do what `fine_tune` does, at its rates: the head, then more at half and a hundredth."""
    (_, head_epochs), (what, epochs) = phases
    rate = 2e-3  # base_lr of fine_tune; so are the rest of these figures its defaults
    learner.freeze()
    learner.fit_one_cycle(head_epochs, slice(rate), pct_start=0.99)
    if what == "all":
        measured.note_drift()
        learner.unfreeze()
    else:
        learner.freeze_to(-2)
    learner.fit_one_cycle(epochs, slice(rate / 2 / 100, rate / 2), pct_start=0.3, div=5.0)


def predict(given: Any, measured: common.Measured) -> None:
    """Predict every photo of a folder from the exported learner."""
    learner = load_learner(given.model)
    paths = common.jobs.list_photos(given.data)
    with measured.loop(), learner.no_bar():
        options = {} if given.workers is None else {"num_workers": given.workers}
        loader = learner.dls.test_dl(paths, bs=given.batch_size, **options)
        probs, _ = learner.get_preds(dl=loader)
    measured.images_seen = len(probs)
    names = [learner.dls.vocab[index] for index in probs.argmax(1).tolist()]
    measured.accuracies = [common.share_right(paths, names)]
    measured.show()


if __name__ == "__main__":
    main()
