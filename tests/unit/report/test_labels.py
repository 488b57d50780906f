"""What the page says of labels that the model's own answers contradict."""

from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic import Plan, write_run

from finetune.report import sections
from finetune.report.gallery import NUM_SUSPECTS
from finetune.report.labels import check_labels
from finetune.report.material import read_material

EVIL = ("<img src=x onerror=alert(1)>", "bees", "wasps")
Tell = Callable[[Plan], str]


@pytest.fixture
def tell(render: Callable[..., str], tmp_path: Path) -> Tell:
    """A function (plan) -> what the page of such a run says of labels."""

    def make(plan: Plan) -> str:
        text = render(write_run(tmp_path / "run", plan), sections.photos)
        return text.partition("<h3>Labels to look at</h3>")[2].partition("<h3>")[0]

    return make


def test_suspects_are_shown_for_a_person_to_decide(tell: Tell, tmp_path: Path) -> None:
    text = tell(Plan(classes=EVIL, num_photos=300, accuracy=0.7, num_leaked=2))
    answers = read_material(tmp_path / "run").main.answers
    suspects = check_labels(answers).suspects
    assert len(suspects) > NUM_SUSPECTS == text.count("<figure ")
    assert text.index(answers.names[suspects[0]]) < text.index(answers.names[suspects[1]])
    assert "The labels of 300 test photos were judged by the model's own answers" in text
    assert f"{len(suspects)} are suspects, the first 12 of which are shown" in text
    assert "not trained on these photos, save 2 that also stand in the training part" in text
    assert "A person decides" in text
    assert "--backbone test_resnet --out findings.json</code> judges training photos" in text
    assert "&lt;img src=x" in text
    assert "<img" not in text


def test_labels_of_validation_are_judged_with_a_reserve(tell: Tell) -> None:
    text = tell(Plan(num_photos=300, accuracy=0.7, has_test=False))
    assert "300 validation photos" in text
    assert "These photos chose the weights, so some wrong labels may be missed." in text
    assert "The model was not trained on these photos. A person decides" in text


def test_no_suspects_are_one_sentence(tell: Tell) -> None:
    text = tell(Plan(accuracy=1.0))
    assert "Of 60 test photos none looks mislabelled to the model" in text
    assert text.count("<p>") == 1
    assert "<figure" not in text


def test_too_few_photos_are_not_judged_and_that_is_said(tell: Tell) -> None:
    text = tell(Plan(num_photos=12))
    assert "No label was judged: that takes two classes of 5 test photos each." in text
