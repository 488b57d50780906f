"""`Classifier`: the pipeline as a scikit-learn estimator.

The constructor stores and does nothing else; `fit` runs the pipeline; learned names end in `_`.
`clone`, `get_params`, `set_params` and `cross_val_score` over paths work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from finetune.components.heads import PythonHead
from finetune.data.index import index_pairs, list_images
from finetune.data.manifest import class_name
from finetune.errors import DataError, FinetuneError, NotFittedError, join_names
from finetune.evaluate.evaluate import evaluate
from finetune.evaluate.labelled import read_labelled
from finetune.model.bundle import MODEL_FILES, Bundle, load_bundle, save_bundle
from finetune.model.inference import InferenceOptions, predict, predict_samples
from finetune.pipeline import run
from finetune.recipe.load import load_recipe
from finetune.recipe.merge import with_arguments
from finetune.report.tables import prediction_frame
from finetune.runtime.device import choose_device
from finetune.runtime.paths import home_path

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from finetune.components.heads import HeadBuilder
    from finetune.evaluate.result import EvalResult
    from finetune.model.inference import ImageLike
    from finetune.pipeline import Run
    from finetune.recipe.schema import Recipe
    from finetune.train.events import OnEvent
    from finetune.types import Index, Split

__all__ = ["Classifier", "load"]

Source = str | Path
_DEFAULTS = {"pretrained": True, "device": "auto", "seed": 0}


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An image classifier: a pretrained backbone fine-tuned on your classes.

    Args:
        backbone: What `timm.create_model` takes; None takes the recipe's.
        recipe: A name, a path, a mapping or a `Recipe`: stages, augmentation and all the rest.
        weights: A weights file instead of the backbone's own.
        pretrained: Load pretrained weights.
        out: The run folder; `runs/<data>-<backbone>-<NNN>` where None.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        seed: All randomness follows from it.
        on_event: Receives everything that happens while fitting.

    An argument left at its default leaves the recipe's value.

    Attributes:
        classes_: (K,) class names, the columns of `predict_proba`.
        run_: The finished run: folder, resolved recipe, figures.
        bundle_: The saved model.

    Example:
        >>> Classifier("resnet18", seed=1).get_params()["seed"]
        1
    """

    def __init__(
        self,
        backbone: str | None = None,
        recipe: str | Path | Mapping[str, Any] | Recipe = "default",
        weights: Source | None = None,
        pretrained: bool = True,
        out: Source | None = None,
        device: str = "auto",
        seed: int = 0,
        on_event: OnEvent | None = None,
    ) -> None:
        self.backbone = backbone
        self.recipe = recipe
        self.weights = weights
        self.pretrained = pretrained
        self.out = out
        self.device = device
        self.seed = seed
        self.on_event = on_event

    def fit(self, X: Source | Sequence[Source], y: Sequence[object] | None = None) -> Self:
        """Train on a folder, a CSV, or paths with labels; write the run folder.

        Args:
            X: A folder by class, a CSV, or N paths.
            y: N labels where X is paths; None otherwise.

        Raises:
            FinetuneError: One of its branches, each with its hint; see `finetune.errors`.
        """
        index = _index(X, y)
        recipe = self.build_recipe(data=X if index is None else None)
        out = None if self.out is None else home_path(self.out)
        self.run_: Run = run(recipe, out=out, on_event=self.on_event, index=index)
        self._take(self.run_.bundle)
        return self

    def predict(self, X: Source | Sequence[Any]) -> NDArray[np.str_]:
        """Give the likeliest class name of each image: (N,).

        Args:
            X: Paths, Pillow images or HWC uint8 arrays, or one of them; RGB where the network takes
                three channels, and HW as well where it takes one. A folder stands for all files in
                it, as in `finetune predict`.

        Raises:
            DataError: An image cannot be read; names the files.
            NotFittedError: Before `fit` or `load`.
        """
        best = self.predict_proba(X).argmax(axis=1)
        answers: NDArray[np.str_] = self.classes_[best]
        return answers

    def predict_proba(self, X: Source | Sequence[Any]) -> NDArray[np.float32]:
        """Give the probability of each class for each image: (N, K) float32, rows sum to 1.

        Args:
            X: Paths, Pillow images or HWC uint8 arrays, or one of them; RGB where the network takes
                three channels, and HW as well where it takes one. A folder stands for all files in
                it, as in `finetune predict`.

        Raises:
            DataError: An image cannot be read; names the files.
            NotFittedError: Before `fit` or `load`.
        """
        bundle = self._fitted()
        outputs = predict(
            bundle, _as_items(X, bundle.preprocessing.channels), options=self._options()
        )
        if outputs.errors:
            lines = [f"{outputs.names[i]}: {reason}" for i, reason in outputs.errors.items()]
            raise DataError(
                f"{len(lines)} of {len(outputs.names)} images cannot be read: {join_names(lines)}",
                hint="finetune predict gives the answers for the others",
            )
        return outputs.probs

    def predict_table(self, X: Source | Sequence[Any]) -> pd.DataFrame:
        """Give all that the model says of each image, as `finetune predict` writes it.

        Args:
            X: As in `predict`; an image that cannot be read has its reason in `error`.

        Returns:
            Columns path, predicted, probability, p_<class>…, error; set, rejected and ood where the
            model has them fitted.

        Raises:
            NotFittedError: Before `fit` or `load`.
        """
        bundle = self._fitted()
        items = _as_items(X, bundle.preprocessing.channels)
        return prediction_frame(predict(bundle, items, options=self._options()))

    def evaluate(self, data: Source, *, split: Split = "test") -> EvalResult:
        """Evaluate on a labelled folder or CSV.

        Args:
            data: A folder by class, a folder with splits, or a CSV.
            split: Which part, where the data has parts; all of it where it has none.

        Raises:
            DataError: The data holds no image that can be scored.
            NotFittedError: Before `fit` or `load`.
        """
        bundle = self._fitted()
        labelled = read_labelled(data, split=split, bundle=bundle)
        outputs = predict_samples(bundle, labelled.samples, options=self._options())
        return evaluate(outputs, split=labelled.split, seed=self.seed, notes=labelled.notes)

    def score(
        self,
        X: Source | Sequence[Any],
        y: Sequence[object] | None = None,
        sample_weight: Sequence[float] | None = None,
    ) -> float:
        """Give the accuracy on paths with labels, or on a labelled folder: in [0, 1]."""
        if y is None:
            if not isinstance(X, (str, Path)):
                raise DataError("score needs labels", hint="score(paths, labels)")
            return float(self.evaluate(X).figures.accuracy)
        answers = self.predict(X)
        right = answers == np.asarray([class_name(str(label)) for label in y])
        return float(np.average(right, weights=sample_weight))

    def save(self, folder: Source) -> Path:
        """Save the model, all that is needed to predict, into a folder.

        Raises:
            FinetuneError: The folder holds something else, or cannot be written.
            NotFittedError: Before `fit` or `load`.
        """
        target = home_path(folder)
        names = {entry.name for entry in target.iterdir()} if target.is_dir() else set()
        # Without a document, nothing but files of a model: a save that was interrupted.
        is_free = "finetune.json" in names or names <= set(MODEL_FILES)
        if target.is_file() or not is_free:
            raise FinetuneError(
                f"{target} exists and holds no model; it is not overwritten",
                hint="choose another folder",
            )
        saved = save_bundle(self._fitted(), target)
        return saved.folder or target

    @classmethod
    def load(
        cls, path: Source, *, device: str = "auto", head: HeadBuilder | None = None
    ) -> Classifier:
        """Load a saved model from a run folder or a model folder, ready to predict.

        Args:
            path: The folder.
            device: As in the constructor.
            head: The object that the head was made by, where that came from Python.

        Raises:
            BundleError: It is missing, damaged, or contradicts itself.
        """
        given = None if head is None else PythonHead(given=head)
        bundle = load_bundle(path, head=given)
        document = bundle.document
        recipe = _without_places(document)
        if given is not None and isinstance(recipe, Mapping):
            recipe = {**recipe, "model": {**recipe.get("model", {}), "head": head}}
        classifier = cls(document.get("backbone"), recipe=recipe, device=device)
        classifier._take(bundle)
        return classifier

    def build_recipe(self, *, data: Source | Sequence[Source] | None = None) -> Recipe:
        """Build the recipe that `fit` runs, from `recipe` and the other arguments.

        Raises:
            RecipeError: With all problems at once.
        """
        given = {"pretrained": self.pretrained, "device": self.device, "seed": self.seed}
        departing: dict[str, Any] = {
            name: value for name, value in given.items() if value != _DEFAULTS[name]
        }
        return with_arguments(
            load_recipe(self.recipe),
            backbone=self.backbone,
            weights=self.weights,
            data=str(data) if isinstance(data, (str, Path)) else None,
            **departing,
        )

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` or `load` has run."""
        return hasattr(self, "bundle_")

    def _take(self, bundle: Bundle) -> None:
        """Keep what was learned."""
        self.bundle_ = bundle
        self.classes_ = np.array(bundle.classes)

    def _fitted(self) -> Bundle:
        """The saved model, or one sentence where there is none yet."""
        if not hasattr(self, "bundle_"):
            raise NotFittedError(
                "this Classifier is not fitted yet", hint="call fit(data), or load a saved model"
            )
        return self.bundle_

    def _options(self) -> InferenceOptions:
        """How prediction runs here."""
        return InferenceOptions(device=choose_device(self.device).value)


def load(path: Source, *, device: str = "auto", head: HeadBuilder | None = None) -> Classifier:
    """Load a saved model from a run folder or a model folder, as a fitted `Classifier`.

    Args:
        path: The folder.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        head: The object that the head was made by, where that came from Python.

    Raises:
        BundleError: It is missing, damaged, or contradicts itself.
    """
    return Classifier.load(path, device=device, head=head)


def _without_places(document: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Give the recipe that made a model without its photos and its device: `fit` has others."""
    recipe = document.get("recipe")
    if not isinstance(recipe, Mapping) or not isinstance(recipe.get("data"), Mapping):
        return "default" if recipe is None else recipe
    places = {"data": ("path", "listed", "split", "exclude"), "runtime": ("device",)}
    return {
        name: {k: v for k, v in section.items() if k not in places[name]}
        if name in places and isinstance(section, Mapping)
        else section
        for name, section in recipe.items()
    }


def _index(X: Source | Sequence[Source], y: Sequence[object] | None) -> Index | None:
    """Index paths with labels; None where X is a folder or a CSV."""
    if isinstance(X, (str, Path)):
        if y is not None:
            raise DataError(
                "y is given beside a folder or CSV, which has its own labels", hint="fit(data)"
            )
        return None
    if y is None:
        raise DataError("paths need labels", hint="fit(paths, labels), or fit(folder)")
    paths = list(X)
    if not all(isinstance(path, (str, Path)) for path in paths):
        raise DataError(
            "fit takes paths of files; images in memory can be predicted only",
            hint="write the images to files, and give their paths",
        )
    return index_pairs(paths, list(y))


def _as_items(X: Any, channels: int) -> list[ImageLike]:
    """Bring what a person passes to a list of paths, images or arrays; a folder to its files."""
    if isinstance(X, (str, Path)):
        return [*list_images([home_path(X)])]
    shape = getattr(X, "shape", ())
    # Of grey images (N, H, W) is several, (H, W) and (H, W, 1) are one.
    is_one = shape[2:] in ((), (1,)) if channels == 1 else len(shape) == 3
    single = hasattr(X, "convert") or (len(shape) > 1 and is_one)
    items: list[Any] = [X] if single else list(X)
    return [home_path(item) if isinstance(item, (str, Path)) else item for item in items]
