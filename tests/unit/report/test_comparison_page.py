"""The page of a comparison tells verdicts, costs, classes and photos, and no name in it runs."""

import re
from collections.abc import Callable, Sequence
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from markup import Page
from synthetic import write_photos

from finetune.evaluate.answers import Cost, RunAnswers
from finetune.evaluate.comparison import compare_runs
from finetune.report.comparison_page import write_comparison_page

EVIL_CLASS = "<img src=x onerror=alert(1)>"
EVIL_FILE = "<script>alert(2)<|script>.png"
EVIL_RUN = "</title><b>run"
CLASSES = ("ants", "bees", EVIL_CLASS)
COST = Cost(
    total_seconds=90.0,
    training_seconds=70.0,
    num_parameters=1_500_000,
    peak_memory_mib=512,
    images_per_second=40.0,
    model_bytes=2048,
)


def answers_of(
    name: str, wrong: Sequence[int], *, number: int = 60, split: str = "test", cost: Cost = COST
) -> RunAnswers:
    """A run that takes some photos for the next class, the later the surer."""
    labels = np.arange(number) % len(CLASSES)
    predicted = labels.copy()
    predicted[list(wrong)] = (predicted[list(wrong)] + 1) % len(CLASSES)
    return RunAnswers(
        name=name,
        split=split,
        classes=CLASSES,
        paths=(EVIL_FILE, *(f"{row:04d}.png" for row in range(1, number))),
        labels=labels,
        predicted=predicted,
        probability=np.linspace(0.4, 0.9, number),
        digests=tuple(f"d{row}" for row in range(number)),
        cost=cost,
    )


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., str]:
    """A function (runs, data folder) -> the page that compares them."""

    def make(*runs: RunAnswers, data: Path | None = None) -> str:
        path = tmp_path / "compared.html"
        write_comparison_page(compare_runs(runs), path, data=data)
        return path.read_text(encoding="utf-8")

    return make


def section(text: str, key: str) -> str:
    """Give the words of a section of a page, without its markup."""
    cut = re.split(r'<section id="|</main>', text.partition(f'<section id="{key}" ')[2])[0]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", f"<section {cut}")).split())


def test_sections_stand_in_the_order_in_which_a_person_asks(page: Callable[..., str]) -> None:
    text = page(answers_of("a", range(20)), answers_of("b", range(3)), answers_of("c", [4]))
    keys = re.findall(r'<section id="([\w-]+)"', text)
    assert keys == ["verdict", "runs", "difference-0", "difference-1", "photos"]
    assert "<title>2 runs compared with a - finetune</title>" in text
    assert "60 test photos of 3 classes, the same in every run" in text


def test_the_verdict_says_who_is_better_with_points_and_interval(
    page: Callable[..., str],
) -> None:
    runs = answers_of("old", range(20)), answers_of("new", range(2))
    (difference,) = compare_runs(runs).differences
    verdict = section(page(*runs), "verdict")
    assert f"{difference.verdict}." in verdict
    assert "new +30.0 17.8 to 42.4 < 0.001 " in verdict
    assert "does not say that runs are equally good" not in verdict


def test_where_no_difference_is_told_the_page_says_what_that_means(
    page: Callable[..., str],
) -> None:
    verdict = section(page(answers_of("a", [1]), answers_of("b", [1])), "verdict")
    assert "no difference can be told: b and a are right on the same images." in verdict
    assert "does not say that runs are equally good" in verdict
    assert " b +0.0 - 1.00 +0.0 - 0 0" in verdict


def test_notes_are_warnings(page: Callable[..., str]) -> None:
    text = page(*(answers_of(name, [1], split="val") for name in "ab"))
    assert '<p class="note">compared on val, which chose the weights of each run' in text


def test_cost_stands_beside_quality_and_what_is_unknown_is_a_dash(
    page: Callable[..., str],
) -> None:
    runs = section(page(answers_of("a", range(6)), answers_of("b", [1], cost=Cost())), "runs")
    assert "a reference 90.0 % 79.9 to 95.3 % 90.0 % 1 min 10 s 1 min 30 s 1.50M 512 MiB" in runs
    assert re.search(r"b 98\.3 % [\d.]+ to [\d.]+ % 98\.3 % - - - - - -$", runs)


def test_every_class_has_a_row_those_first_that_chance_explains_least(
    page: Callable[..., str],
) -> None:
    runs = answers_of("a", range(1, 60, 3)), answers_of("b", [0, 3])
    text = page(*runs)
    rows = section(text, "difference-0").partition("p, corrected photos ")[2]
    assert rows.startswith("bees better 100 % 0 % +100.0 77.2 to 100.0 < 0.001 20 ants ")
    assert "b alone is right on 20 photos, a alone on 2: p < 0.001" in section(text, "difference-0")
    assert '<table class="sortable">' in text.partition('<section id="difference-0"')[2]


def test_photos_are_grouped_by_who_is_right_the_surest_wrong_answers_first(
    page: Callable[..., str],
) -> None:
    text = page(answers_of("a", [1, 2, 9]), answers_of("b", [30]))
    photos = section(text, "photos")
    assert "Of 60 test photos 4 get different answers." in photos
    assert "Only b is right: 3 photos" in photos
    assert "Only a is right: 1 photo " in photos
    assert photos.index("0009.png") < photos.index("0002.png") < photos.index("0001.png")
    assert "bees a, wrong <img src=x onerror=alert(1)> 40.8 % b, right bees 40.8 %" in photos


def test_groups_of_three_runs_name_those_that_are_few(page: Callable[..., str]) -> None:
    photos = section(
        page(answers_of("a", [1, 2, 3]), answers_of("b", [2, 3]), answers_of("c", [3, 4])),
        "photos",
    )
    found = re.findall(r"(?:Only|Right|All) [^:]*: \d+ photos?", photos)
    assert found == [
        "Only c is right: 1 photo",
        "Only a is wrong: 1 photo",
        "Only c is wrong: 1 photo",
    ]


def test_runs_that_agree_have_no_photos_to_show(page: Callable[..., str]) -> None:
    photos = section(page(answers_of("a", [1]), answers_of("b", [1])), "photos")
    assert photos.endswith("Every run gives the same answer to each of the 60 test photos.")


def test_each_photo_is_embedded_once(tmp_path: Path, page: Callable[..., str]) -> None:
    write_photos(tmp_path / "photos", ["0001.png", "0002.png"])
    text = page(answers_of("a", [1, 2]), answers_of("b", []), data=tmp_path / "photos")
    used = re.findall(r'<use href="#([\w-]+)"', text)
    assert len(used) == 2
    assert all(text.count(f'<image id="{key}"') == 1 for key in used)
    assert "have no picture" not in text


def test_photos_that_moved_are_named_with_the_reason(
    tmp_path: Path, page: Callable[..., str]
) -> None:
    write_photos(tmp_path / "photos", ["0001.png"])
    photos = section(
        page(answers_of("a", [1, 2]), answers_of("b", []), data=tmp_path / "photos"), "photos"
    )
    assert "1 of 2 photos have no picture here" in photos
    assert re.search(r"no picture: [\w ]*(not|no such)[\w ]* .*0002\.png", photos, re.IGNORECASE)
    unknown = section(page(answers_of("a", [1, 2]), answers_of("b", [])), "photos")
    assert unknown.count("no picture: it is not known where the photos are") == 2


def test_many_photos_are_named_and_then_counted_not_all_shown(
    page: Callable[..., str],
) -> None:
    text = page(answers_of("a", range(1, 250), number=300), answers_of("b", [], number=300))
    cut = text.partition('<section id="photos"')[2].partition("</section>")[0]
    assert cut.count('<figure class="card">') == 24
    assert cut.count("<li>") == 200
    assert "<p>25 more stand in what --out FILE.json writes.</p>" in cut
    assert re.search(r"<li>0225\.png, labelled ants: a says bees \(77\.6 %\), b says ants", cut)


def test_names_are_told_and_never_run(tmp_path: Path, page: Callable[..., str]) -> None:
    write_photos(tmp_path / "photos", [EVIL_FILE])
    text = page(answers_of("a", [0, 2]), answers_of(EVIL_RUN, [5]), data=tmp_path / "photos")
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "&lt;script&gt;alert(2)&lt;|script&gt;.png" in text
    assert "&lt;/title&gt;&lt;b&gt;run compared with a" in text
    tags = Page(text).tags
    assert [tag for tag, _ in tags if tag == "img"] == []
    assert [name for _, values in tags for name in values if name.startswith("on")] == []
    assert len([tag for tag, _ in tags if tag == "script"]) == 2


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path, page: Callable[..., str]) -> None:
    write_photos(tmp_path / "photos", ["0001.png"])
    text = page(answers_of("a", [1]), answers_of("b", []), data=tmp_path / "photos")
    asked = [
        values[name]
        for _, values in Page(text).tags
        for name in ("src", "href", "action", "data")
        if values.get(name)
    ]
    assert [one for one in asked if not str(one).startswith(("#", "data:image/jpeg;base64,"))] == []


def test_the_same_comparison_gives_the_same_page(page: Callable[..., str]) -> None:
    runs = answers_of("a", [1, 2, 9]), answers_of("b", [30])
    assert page(*runs) == page(*runs)
