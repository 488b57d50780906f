"""The page is one safe file: no name runs, nothing is loaded, its size is bounded."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markup import Page
from PIL import Image
from synthetic import Plan, write_run

from finetune.errors import DataError, FinetuneError
from finetune.report import report as report_module
from finetune.report.gallery import MAX_PHOTOS
from finetune.report.inline import inline_svg
from finetune.report.material import read_material
from finetune.report.photos import read_photos
from finetune.report.plots import draw_losses, svg_of
from finetune.report.report import try_report, write_report

EVIL = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "'\"&amp;\u2028$x_1^2$",
)
EVIL_FILES = ("<script>.jpg", "a\u2028</script>.jpg", '"onload="alert(3).jpg')


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("evil")
    run = write_run(
        folder / "<b>run", Plan(classes=EVIL), data=folder / "photos", names=EVIL_FILES[:0]
    )
    text = (run / "predictions.csv").read_text()
    for number, name in enumerate(EVIL_FILES):
        quoted = '"' + name.replace('"', '""') + '"'
        text = text.replace(f"test/0/photo {number}.jpg", quoted)
    (run / "predictions.csv").write_text(text)
    return write_report(run).path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    return write_run(folder / "run", data=folder / "photos")


def test_no_name_becomes_an_element(evil: str) -> None:
    page = Page(evil)
    assert [values for tag, values in page.tags if tag == "img"] == []
    assert [values for tag, values in page.tags if tag == "script"] == [
        {"type": "application/json", "id": "details"},
        {},
    ]
    assert [name for _, values in page.tags for name in values if name.startswith("on")] == []


def test_every_name_is_still_there_to_be_read(evil: str) -> None:
    assert "&lt;img src=x onerror=alert(1)&gt;" in evil
    assert "&lt;script&gt;.jpg" in evil
    assert "# a reason, &lt;b&gt;bold&lt;/b&gt;" in evil


def test_data_in_the_page_cannot_end_its_element(evil: str) -> None:
    found = re.search(
        r'<script type="application/json" id="details">(.*?)</script>', evil, re.DOTALL
    )
    assert found is not None
    assert not set("<>&'\u2028\u2029") & set(found[1])
    assert EVIL[0] in {detail["label"] for detail in json.loads(found[1]).values()}


def test_the_policy_allows_this_style_and_this_script_only(evil: str) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', evil)
    assert policy is not None
    style = re.search(r"<style>(.*?)</style>", evil, re.DOTALL)
    script = re.search(r"<script>(.*?)</script>", evil, re.DOTALL)
    assert style is not None
    assert script is not None
    digests = [
        "sha256-" + b64encode(sha256(found[1].encode()).digest()).decode()
        for found in (style, script)
    ]
    assert policy[1] == (
        f"default-src 'none'; img-src data:; style-src '{digests[0]}'; script-src '{digests[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_nothing_is_loaded_and_nothing_has_a_style_of_its_own(evil: str) -> None:
    page = Page(evil)
    addresses = page.having("src", "href", "xlink:href", "srcset", "action", "data", "poster")
    assert len(addresses) > 20
    assert [one for one in addresses if not (one or "").startswith(("#", "data:image/jpeg"))] == []
    assert page.having("style") == []


def test_no_two_elements_share_a_name_and_every_reference_has_its_element(evil: str) -> None:
    page = Page(evil)
    names = page.having("id")
    assert len(names) == len(set(names))
    referred = [one for one in page.having("href", "xlink:href") if (one or "").startswith("#")]
    assert {one[1:] for one in referred if one} <= set(names)
    assert set(page.having("aria-labelledby")) <= set(names)


def test_headings_go_down_one_step_at_a_time(evil: str) -> None:
    levels = [int(tag[1]) for tag, _ in Page(evil).tags if re.fullmatch(r"h\d", tag)]
    assert levels[:2] == [1, 2]
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_figures_of_the_page_are_those_of_the_tables(plain: Path) -> None:
    text = write_report(plain).path.read_text(encoding="utf-8")
    figures = json.loads((plain / "metrics.json").read_text())["splits"]["test"]
    low, high = figures["accuracy_interval"]
    assert f"names {100 * figures['accuracy']:.1f} % right" in text
    assert f"95 % interval {100 * low:.1f} to {100 * high:.1f} %" in text
    assert f"<dd>{100 * figures['macro_f1']:.1f} %" in text


def test_the_page_says_how_far_to_believe_it_and_where_it_is_weak(plain: Path) -> None:
    text = write_report(plain).path.read_text(encoding="utf-8")
    figures = json.loads((plain / "metrics.json").read_text())["splits"]["test"]
    doubt, after = text.partition('id="doubt"')[2].partition('id="slices"')[::2]
    honest = figures["calibration"]
    assert f"<td>{100 * honest['ece_after']:.1f} %</td>" in doubt
    assert f"<td>{honest['log_loss_after']:.3f}</td>" in doubt
    assert doubt.count("<figure><svg") == 2
    rows = after.partition("</section>")[0]
    assert len(figures["slices"]) == rows.count('<tr><th scope="row">') > 0
    weakest = min(figures["slices"], key=lambda row: row["accuracy"])
    assert weakest["name"] in rows
    assert f"{100 * weakest['accuracy']:.1f} %" in rows


@pytest.mark.slow
def test_the_same_files_give_the_same_page_and_charts(plain: Path) -> None:
    first = write_report(plain)
    before = {path: path.read_bytes() for path in [first.path, *plain.glob("plots/*")]}
    write_report(plain)
    assert len(before) == 9
    assert {path: path.read_bytes() for path in before} == before


def test_photos_that_are_gone_are_named_and_counted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    report = write_report(run)
    assert report.num_missing == report.num_photos > 0
    assert report.reason == "no such file"
    text = report.path.read_text(encoding="utf-8")
    assert "no picture: no such file" in text
    assert f"{report.num_photos} of {report.num_photos} photos have no picture here" in text


def test_photos_that_moved_are_taken_from_where_they_are(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", data=tmp_path / "photos")
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    assert write_report(run).num_missing > 0
    assert write_report(run, data=tmp_path / "elsewhere").num_missing == 0


def test_a_data_folder_that_is_not_there_is_refused(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none does not exist"):
        write_report(plain, data=tmp_path / "none")


def test_a_run_is_not_lost_where_its_page_cannot_be_made(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []

    def fail(*arguments: object, **keywords: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(report_module, "read_material", fail)
    assert try_report(plain, warn=warned.append) is None
    assert warned == [
        f"no report.html: RuntimeError: no room; the run is complete, try finetune report {plain}"
    ]


def test_a_damaged_run_is_a_warning_of_one_sentence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "metrics.json").write_text("{")
    warned: list[str] = []
    try_report(run, warn=warned.append)
    with pytest.raises(FinetuneError) as caught:
        write_report(run)
    assert warned[0].startswith(f"no report.html: {caught.value.message}; the run is complete")


@pytest.mark.slow
def test_many_classes_and_photos_that_hardly_compress_stay_within_bounds(tmp_path: Path) -> None:
    classes = tuple(f"a kind of bird with a long name {n}" for n in range(60))
    plan = Plan(classes=classes, num_photos=1200, accuracy=0.5)
    run = write_run(tmp_path / "run", plan)
    report = write_report(run)
    assert 100 < report.num_photos <= MAX_PHOTOS
    # noise is what a JPEG spends most bytes on; no photo of the page can be larger
    Image.effect_noise((256, 256), 80).save(tmp_path / "noise.jpg")
    photo = read_photos(tmp_path, ["noise.jpg"])["noise.jpg"]
    assert report.path.stat().st_size + MAX_PHOTOS * len(photo.uri or "") < 10_000_000


def test_a_chart_brings_no_style_and_no_name_that_another_has(plain: Path) -> None:
    epochs = read_material(plain).epochs
    one, other = (
        inline_svg(svg_of(draw_losses(epochs)), name=name, label="<losses>")
        for name in ("one", "other")
    )
    root = ElementTree.fromstring(one)
    assert root.get("aria-label") == "<losses>"
    assert [element for element in root.iter() if element.get("style")] == []
    names = [{e.get("id") for e in ElementTree.fromstring(x).iter()} - {None} for x in (one, other)]
    assert names[0]
    assert not names[0] & names[1]
    assert 'stroke="#0072b2"' in one
