"""`Classifier` keeps scikit-learn's estimator contract, over paths."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError as SklearnNotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils.validation import check_is_fitted

from finetune import Classifier, load
from finetune.errors import DataError, FinetuneError, NotFittedError, RecipeError
from finetune.plan import plan
from finetune.recipe.load import load_recipe
from finetune.recipe.merge import with_arguments

PROBE = {"augment": "none", "stages": [{"name": "head", "train": "head", "solver": "probe"}]}


def make(**arguments: object) -> Classifier:
    given = {"recipe": PROBE, "pretrained": False, "device": "cpu", **arguments}
    return Classifier("test_resnet", **given)


@pytest.fixture(scope="module")
def pairs(tiny_folder: Path) -> tuple[list[Path], list[str]]:
    paths = sorted(tiny_folder.glob("*/*.png"))
    assert len(paths) == 36
    return paths, [path.parent.name for path in paths]


@pytest.fixture(scope="module")
def fitted(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return make(out=tmp_path_factory.mktemp("classifier") / "run").fit(tiny_folder)


def test_constructor_stores_and_a_clone_is_equal() -> None:
    classifier = make(seed=3)
    assert clone(classifier).get_params() == classifier.get_params()
    assert classifier.set_params(seed=4).seed == 4


def test_constructor_does_no_work() -> None:
    assert Classifier("no_such_backbone", recipe="no such recipe").backbone == "no_such_backbone"


@pytest.mark.slow
def test_cross_validation_over_paths_works(
    pairs: tuple[list[Path], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scores = cross_val_score(make(), *pairs, cv=2, error_score="raise")
    assert scores.tolist() == [1.0, 1.0]
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_predictions_are_class_names(
    fitted: Classifier, pairs: tuple[list[Path], list[str]]
) -> None:
    assert fitted.classes_.tolist() == ["blue", "green", "red"]
    assert fitted.predict(pairs[0]).tolist() == pairs[1]
    assert fitted.score(*pairs) == 1.0


def test_probabilities_follow_the_order_of_classes(fitted: Classifier, tiny_folder: Path) -> None:
    probs = fitted.predict_proba([tiny_folder / "red" / "red_00.png"])
    assert probs.shape == (1, 3)
    assert probs.dtype == np.float32
    assert probs[0].argmax() == 2
    assert probs.sum() == pytest.approx(1.0, abs=1e-5)


def test_paths_images_and_arrays_are_the_same(fitted: Classifier, tiny_folder: Path) -> None:
    path = tiny_folder / "green" / "green_03.png"
    with Image.open(path) as image:
        image.load()
        given = [path, image, np.asarray(image)]
        probs = fitted.predict_proba(given)
    np.testing.assert_array_equal(probs[0], probs[1])
    np.testing.assert_array_equal(probs[0], probs[2])


@pytest.mark.parametrize("kind", ["text", "path"])
def test_one_image_needs_no_list(fitted: Classifier, tiny_folder: Path, kind: str) -> None:
    path = tiny_folder / "blue" / "blue_00.png"
    assert fitted.predict(str(path) if kind == "text" else path).tolist() == ["blue"]


def test_unreadable_images_are_named(fitted: Classifier, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"1 of 1 images cannot be read: .*bad\.jpg: not an image"):
        fitted.predict([tmp_path / "bad.jpg"])


def test_evaluation_gives_frames(fitted: Classifier, tiny_folder: Path) -> None:
    result = fitted.evaluate(tiny_folder)
    assert result.figures.num_samples == 6
    assert list(result.confusion.index) == ["blue", "green", "red"]
    assert len(result.per_class) == 3
    assert result.predictions["correct"].all()


def test_saved_model_loads_and_answers_alike(
    fitted: Classifier, pairs: tuple[list[Path], list[str]], tmp_path: Path
) -> None:
    fitted.save(tmp_path / "colours")
    for loaded in (Classifier.load(tmp_path / "colours"), load(tmp_path / "colours", device="cpu")):
        np.testing.assert_array_equal(
            loaded.predict_proba(pairs[0][:3]), fitted.predict_proba(pairs[0][:3])
        )


def test_saving_never_replaces_what_is_no_model(fitted: Classifier, tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(FinetuneError, match="holds no model; it is not overwritten"):
        fitted.save(tmp_path)
    assert (tmp_path / "thesis.doc").read_text() == "mine"


def test_answers_before_fit_are_refused() -> None:
    with pytest.raises(NotFittedError, match="this Classifier is not fitted yet") as caught:
        make().predict(["a.jpg"])
    assert caught.value.hint == "call fit(data), or load a saved model"
    with pytest.raises(SklearnNotFittedError):
        check_is_fitted(make())


def test_paths_without_labels_are_refused(pairs: tuple[list[Path], list[str]]) -> None:
    with pytest.raises(DataError, match="paths need labels"):
        make().fit(pairs[0])


def test_labels_beside_a_folder_are_refused(tiny_folder: Path) -> None:
    with pytest.raises(DataError, match="y is given beside a folder"):
        make().fit(tiny_folder, ["a"])


def test_wrong_recipe_is_told_when_fitting(tiny_folder: Path) -> None:
    with pytest.raises(RecipeError, match="stages") as caught:
        make(recipe={"stages": [{"name": "a", "train": "haed"}]}).fit(tiny_folder)
    assert "head" in str(caught.value)


def test_a_missing_label_is_no_class(pairs: tuple[list[Path], list[str]]) -> None:
    with pytest.raises(DataError, match="1 path has no label"):
        make().fit(pairs[0], [None, *pairs[1][1:]])


def test_labels_are_scored_as_they_are_learned(
    fitted: Classifier, pairs: tuple[list[Path], list[str]]
) -> None:
    assert fitted.score(pairs[0], [f" {label} " for label in pairs[1]]) == 1.0


def test_a_folder_stands_for_its_files(
    fitted: Classifier, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = fitted.predict_table(tiny_folder / "blue")
    files = sorted((tiny_folder / "blue").iterdir())
    assert table["path"].tolist() == [str(path) for path in files]
    monkeypatch.setenv("HOME", str(tiny_folder))
    assert fitted.predict(["~/blue/" + files[0].name]).tolist() == ["blue"]


@pytest.mark.slow
def test_what_is_fitted_again_names_the_photos_that_it_was_given(
    fitted: Classifier, pairs: tuple[list[Path], list[str]], tmp_path: Path
) -> None:
    folder = shutil.copytree(pairs[0][0].parents[1], tmp_path / "other")
    paths = [folder / path.parent.name / path.name for path in pairs[0]]
    again = load(fitted.run_.folder, device="cpu").set_params(out=tmp_path / "run")
    again.fit(paths, pairs[1])
    assert again.run_.recipe.data.path == str(folder)
    assert again.bundle_.document["recipe"]["data"]["path"] == str(folder)
    again = Classifier(recipe=fitted.run_.folder / "recipe.yaml", out=tmp_path / "next")
    assert again.fit(paths, pairs[1]).run_.recipe.data.path == str(folder)


def test_images_in_memory_cannot_be_trained_on() -> None:
    with pytest.raises(DataError, match="fit takes paths of files") as caught:
        make().fit([np.zeros((8, 8, 3), np.uint8)], ["a"])
    assert caught.value.hint == "write the images to files, and give their paths"


def test_a_loaded_model_is_fitted_again_where_one_stands(fitted: Classifier) -> None:
    folder = fitted.run_.folder
    saved = folder / "model" / "finetune.json"
    text = saved.read_text()
    assert '"device": "cpu"' in text
    saved.write_text(text.replace('"device": "cpu"', '"device": "cuda:7"'))
    try:
        assert load(folder).build_recipe().runtime.device == "auto"
    finally:
        saved.write_text(text)


def test_labels_given_one_by_one_are_never_taken_from_folders(
    pairs: tuple[list[Path], list[str]], tiny_folder: Path, tmp_path: Path
) -> None:
    turned = {"blue": "green", "green": "red", "red": "blue"}
    labels = [turned[label] for label in pairs[1]]
    run = tmp_path / "run"
    make(out=run).fit(pairs[0], labels)
    recipe = load_recipe(run / "recipe.yaml")
    assert recipe.data.listed
    with pytest.raises(RecipeError, match="given one by one in Python") as caught:
        plan(recipe)
    assert "--data" in str(caught.value.hint)
    assert not with_arguments(recipe, data=tiny_folder).data.listed
    again = Classifier(recipe=run / "recipe.yaml", out=tmp_path / "again").fit(pairs[0], labels)
    assert (tmp_path / "again/split.csv").read_text() == (run / "split.csv").read_text()
    assert load(run).build_recipe().data.listed is False
    assert again.run_.recipe.data.listed
