"""What to do next: plain advice, each piece with the figures that it rests on.

One function a rule, from what the files say to one piece of advice or none. The foot of the file
tells all rules, the most urgent first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from statistics import NormalDist
from typing import TYPE_CHECKING

from finetune.data.words import counted
from finetune.errors import join_names
from finetune.evaluate.comparison import LEVEL
from finetune.evaluate.evaluate import WIDE
from finetune.evaluate.paired import holm
from finetune.report.story import PART_WORDS, floor_of, mean_confidence
from finetune.report.words import as_percent, between, count, duration
from finetune.runtime.shell import quote

if TYPE_CHECKING:
    from finetune.report.gallery import Gallery
    from finetune.report.material import Epoch, Material

__all__ = ["RULES", "Advice", "advise"]

_FEW = 10  # training photos of a class, below which `finetune check` warns
_SHARE_OF_PAIR = 0.2  # of all mistakes: with four classes or more, more than chance gives a pair
_FEWEST_OF_PAIR = 3  # mistakes: two may be chance
_FEWEST_CLASSES = 3  # of two classes every mistake is of the one pair
_FEWEST_TO_JUDGE = 100  # photos: below, a mean confidence is known no better than to 5 points
_MUCH = 0.05  # points of accuracy that a person notices
_RISE = 1.1  # a validation loss a tenth above its least is no noise of the batches
_FEWEST_EPOCHS = 3  # that tell a direction
_AIM = 0.05  # half width of an interval that tells sensible models apart


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to do.

    Attributes:
        kind: The rule that gave it, one word.
        title: What to do.
        reason: Why: the figures.
        how: How to do it, in words; empty where the title says it.
        command: What to type; empty where there is nothing.
    """

    kind: str
    title: str
    reason: str
    how: str = ""
    command: str = ""


Rule = Callable[["Material", "Gallery"], Advice | None]


def advise(material: Material, gallery: Gallery) -> tuple[Advice, ...]:
    """Give all advice that the figures support, the most urgent first."""
    given = (rule(material, gallery) for rule in RULES)
    return tuple(advice for advice in given if advice is not None)


def leaks(material: Material, gallery: Gallery) -> Advice | None:
    """Photos that were trained on make figures too good."""
    part = material.main
    leaked = part.leaks.total if part.leaks else 0
    if not leaked:
        return None
    word = PART_WORDS[part.split]
    return Advice(
        "leaks",
        "Take out the photos that stand in two parts",
        f"{count(leaked)} of {count(part.figures.num_samples)} {word} photos, or the pictures they "
        f"show, were also trained on: the figures are better than they would be on new photos.",
        "Write the fix list, look through it, and run again without what it excludes.",
        f"finetune check {_data(material)} --out findings.json\n"
        f"{_again(material)} --exclude findings.csv",
    )


def nothing_learned(material: Material, gallery: Gallery) -> Advice | None:
    """A model no better than always the same answer has learned nothing."""
    name, floor = floor_of(material)
    figures = material.main.figures
    if figures.accuracy_interval[0] > floor or figures.num_samples < _FEWEST_OF_PAIR:
        return None
    return Advice(
        "nothing_learned",
        "Find out why it has learned next to nothing",
        f"Its accuracy, {as_percent(figures.accuracy)} ({between(figures.accuracy_interval)}), is "
        f"not surely above the {as_percent(floor)} of always answering “{name}”.",
        "Check that the labels are right, start from pretrained weights, and see whether the "
        "training loss falls at all.",
        f"finetune check {_data(material)}",
    )


def no_test(material: Material, gallery: Gallery) -> Advice | None:
    """Without a test part nothing says how good the model is on photos it was not chosen by."""
    if material.main.split != "val":
        return None
    return Advice(
        "no_test",
        "Keep a test part",
        "There is none: the figures are those of validation, by which the weights were chosen.",
        "Put photos that nothing else uses into a folder test/ beside train/, by class; or give a "
        "folder without parts, and a test part is carved out.",
    )


def suspects(material: Material, gallery: Gallery) -> Advice | None:
    """Where the model's answers contradict the label, the label may be wrong."""
    number = len(gallery.labels.suspects)
    if not number:
        return None
    return Advice(
        "suspects",
        f"Look at the labels of {counted(number, 'photo')}",
        "The model finds another class much likelier than theirs, and as likely as for photos that "
        "are labelled so: either it is badly mistaken, or the label is wrong.",
        "They are under “Labels to look at”, the likeliest first. Move what is labelled wrong.",
    )


def few_training_photos(material: Material, gallery: Gallery) -> Advice | None:
    """A handful of photos shows a class in too few ways."""
    trained = material.course.counts.get("train")
    if not trained:
        return None
    few = {name: trained.get(name, 0) for name in material.classes if trained.get(name, 0) < _FEW}
    if not few:
        return None
    named = [f"{name} ({number})" for name, number in sorted(few.items(), key=lambda row: row[1])]
    return Advice(
        "few_training_photos",
        f"Collect more photos of {counted(len(few), 'class')}",
        f"Fewer than {_FEW} training photos: {join_names(named)}.",
        "Photos of different days, places and cameras are worth more than many alike.",
    )


def few_test_photos(material: Material, gallery: Gallery) -> Advice | None:
    """A wide interval tells no two sensible models apart."""
    part = material.main
    low, high = part.figures.accuracy_interval
    if high - low <= WIDE:
        return None
    share = min(max(part.figures.accuracy, 0.1), 0.9)  # a share of 1 in few photos is not known
    z = NormalDist().inv_cdf(0.975)
    needed = 10 * ceil(z**2 * share * (1 - share) / _AIM**2 / 10)
    word = PART_WORDS[part.split]
    return Advice(
        "few_test_photos",
        f"Set more {word} photos aside",
        f"From {count(part.figures.num_samples)} photos the accuracy is only known to lie between "
        f"{as_percent(low)} and {as_percent(high)}; about {count(needed)} would tell it to "
        "within 5 points.",
        "Until then, do not prefer one model to another by a few points.",
    )


def weak_classes(material: Material, gallery: Gallery) -> Advice | None:
    """A class whose recall is surely below the accuracy holds the model back."""
    from scipy.stats import binom

    figures = material.main.figures
    found = [(row, round((row.recall or 0.0) * row.support)) for row in figures.per_class]
    judged = [(row, num_right) for row, num_right in found if row.support]
    # Of many classes some look weak by chance, so the test of each pays for all.
    p_values = holm([binom.cdf(right, row.support, figures.accuracy) for row, right in judged])
    weak = [pair for pair, p_value in zip(judged, p_values, strict=True) if p_value < LEVEL]
    if not weak:
        return None
    weak.sort(key=lambda pair: (pair[0].recall, pair[0].name))
    named = [f"{row.name} ({num_right} of {row.support})" for row, num_right in weak]
    return Advice(
        "weak_classes",
        f"Help {counted(len(weak), 'weak class')}",
        f"Photos found of {join_names(named)}: below the accuracy of "
        f"{as_percent(figures.accuracy)}, and not by chance, having looked at every class.",
        "Look at what they are taken for in the confusion matrix, then add training photos of them "
        "that show the difference.",
    )


def weak_slices(material: Material, gallery: Gallery) -> Advice | None:
    """Photos of one kind that are answered worse than the rest are what to collect."""
    rows = material.main.figures.slices
    worse = sorted((row for row in rows if row.stands_out), key=lambda row: row.accuracy)
    if not worse:
        return None
    named = [
        f"{row.name} by {row.by} ({as_percent(row.accuracy)} right, all others "
        f"{as_percent(row.rest_accuracy)})"
        for row in worse
    ]
    return Advice(
        "weak_slices",
        f"See to {counted(len(worse), 'kind')} of photos",
        f"Answered worse than the others, and not by chance: {join_names(named)}.",
        "Where such photos will be asked about, add training photos of that kind; where they will "
        "not, leave them out of the figures.",
    )


def confused_pair(material: Material, gallery: Gallery) -> Advice | None:
    """Two classes that make up many of the mistakes deserve a look of their own."""
    mistakes = int(material.main.answers.is_mistake.sum())
    if not gallery.pairs or len(material.classes) < _FEWEST_CLASSES:
        return None
    pair = gallery.pairs[0]
    number = pair.num_mistakes
    if number < _FEWEST_OF_PAIR or number < _SHARE_OF_PAIR * mistakes:
        return None
    one, other = material.classes[pair.one], material.classes[pair.other]
    return Advice(
        "confused_pair",
        f"Tell {one} and {other} apart",
        f"They are taken for each other in {count(number)} of {counted(mistakes, 'mistake')}.",
        "If a person cannot tell them apart from these photos either, join the classes, or use "
        "larger images (model.image_size); if a person can, add photos that show how.",
    )


def unsure_probabilities(material: Material, gallery: Gallery) -> Advice | None:
    """Probabilities that are not what comes true must not be read as chances."""
    figures = material.main.figures
    sure = mean_confidence(material)
    low, high = figures.accuracy_interval
    is_known = figures.num_samples >= _FEWEST_TO_JUDGE and not low <= sure <= high
    if not is_known or abs(sure - figures.accuracy) < _MUCH:
        return None
    too = "too sure" if sure > figures.accuracy else "not sure enough"
    return Advice(
        "unsure_probabilities",
        "Do not read its probabilities as chances of being right",
        f"It is {too}: {as_percent(sure)} sure on average, and right for "
        f"{as_percent(figures.accuracy)} ({between(figures.accuracy_interval)}).",
        "They still rank photos. Choose a threshold by what validation photos show.",
    )


def probe_is_enough(material: Material, gallery: Gallery) -> Advice | None:
    """Stages that gain nothing over the probe cost time for nothing."""
    probe, val = material.probe_accuracy, material.parts.get("val")
    stages = material.stage_seconds
    if probe is None or val is None or len(stages) < 2:
        return None
    gain = val.figures.accuracy - probe
    if gain >= _MUCH / 2 or probe < val.figures.accuracy_interval[0]:
        return None
    rest = sum(list(stages.values())[1:])
    return Advice(
        "probe_is_enough",
        "Use the probe, or another backbone",
        f"On validation the probe alone is right for {as_percent(probe)}, and after "
        f"{duration(rest)} more of training the model is for {as_percent(val.figures.accuracy)}.",
        "The probe takes a fraction of the time; a larger backbone may give more than more epochs.",
        f"finetune run --data {_data(material)}{_model(material)} --recipe probe",
    )


def learned_by_heart(material: Material, gallery: Gallery) -> Advice | None:
    """A validation loss that rises while the training loss falls is overfitting."""
    epochs = _last_stage(material)
    known = [
        (epoch.val_loss, epoch.train_loss)
        for epoch in epochs
        if epoch.val_loss is not None and epoch.train_loss is not None
    ]
    if len(known) < _FEWEST_EPOCHS:
        return None
    (least, trained), (last, trained_last) = min(known), known[-1]
    if last < _RISE * least or trained_last > trained:
        return None
    return Advice(
        "learned_by_heart",
        "Keep it from learning photos by heart",
        f"In stage {epochs[-1].stage} the validation loss rose from {least:.3f} to {last:.3f} "
        f"while the training loss fell to {trained_last:.3f}. The best epoch was kept: "
        "nothing is lost but time.",
        "More photos help most; then stronger augmentation, fewer layers that learn, fewer epochs.",
        f"finetune run --data {_data(material)}{_model(material)} --recipe small-data",
    )


def still_learning(material: Material, gallery: Gallery) -> Advice | None:
    """A best epoch that is the last one says that there may be more to gain."""
    epochs = _last_stage(material)
    if len(epochs) < _FEWEST_EPOCHS or material.course.kept != (epochs[-1].stage, epochs[-1].epoch):
        return None
    stages = list(dict.fromkeys(epoch.stage for epoch in material.epochs))
    return Advice(
        "still_learning",
        "Train longer",
        f"The best epoch of stage {epochs[-1].stage} was the last of its {len(epochs)}: it was "
        "still getting better.",
        "Give it twice the epochs.",
        f"finetune run --recipe {quote(str(material.folder / 'recipe.yaml'))} "
        f"--set stages.{len(stages) - 1}.epochs={2 * len(epochs)}",
    )


def left_out(material: Material, gallery: Gallery) -> Advice | None:
    """Files that could not be used are photos that could be won."""
    number = material.main.figures.num_unreadable
    number += len(material.course.left_out)
    if not number:
        return None
    return Advice(
        "left_out",
        f"See to {counted(number, 'file')} left out",
        "They could not be read, are no photos, or were excluded; each stands under data health "
        "with its reason.",
    )


def use_it(material: Material, gallery: Gallery) -> Advice | None:
    """The next step with a model is to use it."""
    if not material.is_run:
        return None
    return Advice(
        "use_it",
        "Try it on new photos",
        "Photos taken where it will be used tell more than any figure here.",
        command=f"finetune predict {quote(str(material.folder))} photo.jpg",
    )


def _last_stage(material: Material) -> tuple[Epoch, ...]:
    """Give the epochs of the last stage that trained by gradient."""
    trained = [epoch for epoch in material.epochs if epoch.lr]
    last = trained[-1].stage if trained else None
    return tuple(epoch for epoch in material.epochs if epoch.stage == last)


def _again(material: Material) -> str:
    """Give the command that repeats the run, as far as its recipe is there."""
    recipe = material.folder / "recipe.yaml"
    if material.recipe is None:
        return f"finetune run --data {_data(material)}{_model(material)}"
    return f"finetune run --recipe {quote(str(recipe))}"


def _model(material: Material) -> str:
    """Name the backbone of the run, and its weights, in a command; nothing where it is unknown."""
    backbone = material.document["backbone"]
    named = f" --backbone {quote(str(backbone))}" if backbone else ""
    return f"{named} --weights {quote(material.weights)}" if material.weights else named


def _data(material: Material) -> str:
    """Name the data in a command."""
    return quote(str(material.data)) if material.data else "DIR"


RULES: tuple[Rule, ...] = (
    leaks,
    nothing_learned,
    no_test,
    few_training_photos,
    suspects,
    weak_classes,
    weak_slices,
    confused_pair,
    few_test_photos,
    learned_by_heart,
    still_learning,
    probe_is_enough,
    unsure_probabilities,
    left_out,
    use_it,
)
