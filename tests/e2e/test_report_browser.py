"""The pages in a browser: by mouse and keyboard, on a phone and on paper, without a network."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic import Plan, make_bundle, write_run

from finetune.components.preprocess import Preprocessing
from finetune.evaluate.comparison import compare_runs
from finetune.pipeline import run
from finetune.recipe.load import load_recipe
from finetune.recipe.merge import with_arguments
from finetune.report.comparison_page import write_comparison_page
from finetune.report.report import write_report
from finetune.report.runs import read_runs

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE, DESK = 360, 1440  # pixels of width
CLASSES = ("ants", "bees", "<img src=x onerror=alert(1)>")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    plan = Plan(classes=CLASSES, num_photos=90, accuracy=0.7, num_leaked=2)
    run = write_run(folder / "run-001", plan, data=folder / "photos")
    sees_part = Preprocessing(input_size=(3, 64, 64), crop_pct=0.8)
    return write_report(run, make_bundle(CLASSES, sees_part)).path.as_uri()


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("comparison")
    shares = {"photos-mobilenetv3_small_100-reference-001": 0.7, "run-002": 0.9}
    runs = [
        write_run(
            folder / name, Plan(classes=CLASSES, num_photos=90, accuracy=share), data=folder / "in"
        )
        for name, share in shares.items()
    ]
    found = read_runs(runs)
    compared = compare_runs([run.answers("test") for run in found])
    write_comparison_page(compared, folder / "compared.html", data=found[0].data())
    return (folder / "compared.html").as_uri()


@pytest.fixture(scope="module", params=["textures", "trash"])
def real_address(
    request: pytest.FixtureRequest, assets: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    network = f"local-dir:{assets}/weights/mobilenetv2_100.in1k"
    data = assets / "datasets" / request.param
    recipe = with_arguments(load_recipe("probe"), backbone=network, data=data, device="cpu")
    done = run(recipe, out=tmp_path_factory.mktemp("real") / request.param)
    return (done.folder / "report.html").as_uri()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Any]:
    """A function (width, scheme, at) -> a page; nothing may go wrong while it is open."""
    contexts, said, asked = [], [], []

    def make(width: int = DESK, scheme: str = "light", *, at: str = address, **more: Any) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **more
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(at)
        return page

    yield make
    for context in contexts:
        context.close()
    assert said == []
    embedded = ("file://", "data:image/jpeg", "data:image/png")
    assert [url for url in asked if not url.startswith(embedded)] == []


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_is_no_wider_than_the_screen(open_page: Any, width: int) -> None:
    page = open_page(width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.title() == "Run run-001 - finetune"


def grave_faults(page: Any, context: str | None = None) -> list[tuple[str, list[str]]]:
    """Name what axe-core finds serious or critical, each with the elements."""
    found = axe.Axe().run(page, context=context).response["violations"]
    return [
        (each["id"], [node["html"] for node in each["nodes"]][:3])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_no_serious_fault_of_access(open_page: Any, width: int, scheme: str) -> None:
    page = open_page(width, scheme, bypass_csp=True)  # for axe's script, not for the page's
    page.get_by_text("Every epoch as a table").click()
    page.locator(".matrix .wrong a").first.click()
    assert grave_faults(page) == []
    page.locator("#photos .open").first.click()
    assert grave_faults(page, "dialog") == []
    page.get_by_role("group", name="Where the model looked").get_by_role("button").first.click()
    assert grave_faults(page, "dialog") == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_number_of_the_matrix_leads_to_its_photos(open_page: Any) -> None:
    page = open_page()
    number = page.locator(".matrix .wrong a").first
    words = number.get_attribute("aria-label")
    cell = page.locator(number.get_attribute("href"))
    assert not cell.is_visible()
    number.click()
    assert cell.is_visible()
    assert re.match(r"\d+", words)[0] in cell.locator("h3").inner_text()
    assert cell.evaluate("element => element === document.activeElement")


def test_the_matrix_is_reached_and_opened_by_keyboard(open_page: Any) -> None:
    page = open_page()
    page.locator(".matrix .wrong a").first.focus()
    page.keyboard.press("Enter")
    page.locator(".cell:target").wait_for(state="visible")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Back to the matrix"


def test_a_heading_sorts_the_table_both_ways(open_page: Any) -> None:
    page = open_page()
    heading = page.locator("#classes th", has_text="photos").first
    recall = page.locator("#classes th", has_text="recall").first

    def column(index: int) -> list[float]:
        cells = page.locator(f"#classes tbody tr td:nth-child({index})")
        return [float(cell.get_attribute("data-value")) for cell in cells.all()]

    assert column(2) == sorted(column(2))
    recall.get_by_role("button").click()
    assert recall.get_attribute("aria-sort") == "ascending"
    assert column(4) == sorted(column(4))
    recall.get_by_role("button").press("Enter")
    assert recall.get_attribute("aria-sort") == "descending"
    assert column(4) == sorted(column(4), reverse=True)
    assert heading.get_attribute("aria-sort") is None


def test_a_mistake_opens_and_others_are_a_step_away(open_page: Any) -> None:
    page = open_page()
    page.locator("#photos .open").first.click()
    viewer = page.get_by_role("dialog")
    assert viewer.locator("caption").inner_text().startswith("What the model says; labelled ")
    first = viewer.locator(".files").inner_text()
    assert "(1 of " in first
    page.keyboard.press("ArrowRight")
    assert "(2 of " in viewer.locator(".files").inner_text()
    viewer.get_by_role("button", name="Previous").click()
    assert viewer.locator(".files").inner_text() == first
    page.keyboard.press("Escape")
    assert not viewer.is_visible()


def test_a_map_is_laid_over_a_photo_and_taken_away(open_page: Any) -> None:
    page = open_page()
    key = page.evaluate("Object.entries(details).find(([, one]) => one.maps?.[0][2])[0]")
    page.locator(f"#photos [data-shot={key}] .open").first.click()
    viewer = page.get_by_role("dialog")
    predicted, labelled = viewer.get_by_role("group").get_by_role("button").all()
    map_ = viewer.locator("svg image")
    assert map_.count() == 0
    bare = viewer.locator("svg").screenshot()
    predicted.click()
    assert predicted.get_attribute("aria-pressed") == "true"
    assert labelled.get_attribute("aria-pressed") == "false"
    assert viewer.locator("svg").screenshot() != bare
    words = viewer.locator("#said").inner_text()
    assert words.startswith("Coloured: ")
    assert words.endswith("The model saw what is in the frame.")
    assert viewer.get_by_role("img").get_attribute("aria-label").endswith(words)
    box, frame = map_.bounding_box(), viewer.locator("svg rect").bounding_box()
    whole = viewer.locator("svg use").bounding_box()
    assert box["width"] == pytest.approx(0.8 * whole["width"], rel=0.01)  # as its crop_pct
    assert box["x"] - whole["x"] == pytest.approx(0.1 * whole["width"], rel=0.05)
    assert frame["width"] == pytest.approx(box["width"], rel=0.05)  # with its stroke
    predicted.click()
    assert map_.count() == 0
    assert viewer.locator("svg").screenshot() == bare


def test_a_map_is_chosen_by_keyboard_and_stays_chosen_for_the_next_photo(open_page: Any) -> None:
    page = open_page()
    page.locator("#photos .open").first.focus()
    page.keyboard.press("Enter")
    viewer = page.get_by_role("dialog")
    page.keyboard.press("Tab")  # from the first button, which has the focus, to the second
    page.keyboard.press("Space")
    focused = "document.activeElement.getAttribute('aria-pressed')"
    assert page.evaluate(focused) == "true"
    assert viewer.locator("svg image").count() == 1
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == "true"
    assert "(2 of " in viewer.locator(".files").inner_text()
    assert viewer.locator("svg image").count() == 1
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == "false"
    assert viewer.locator("svg image").count() == 0


def test_a_photo_without_maps_says_so(open_page: Any) -> None:
    page = open_page()
    key = page.evaluate("Object.entries(details).find(([, one]) => !one.maps)[0]")
    cell = page.locator(".cell", has=page.locator(f"[data-shot={key}]"))
    page.locator(f".matrix a[href='#{cell.get_attribute('id')}']").click()
    cell.locator(f"[data-shot={key}] .open").click()
    viewer = page.get_by_role("dialog")
    assert viewer.get_by_role("group").count() == 0
    assert viewer.locator("#said").inner_text() == "Maps are made of the photos to look at only."


def test_the_theme_follows_the_system_until_it_is_switched(open_page: Any) -> None:
    page = open_page(scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    page.get_by_role("button", name="Light").click()
    assert page.evaluate(colour) == "rgb(255, 255, 255)" != dark
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(colour) == dark


def test_everything_can_be_read_without_the_script(open_page: Any) -> None:
    page = open_page(java_script_enabled=False)
    number = page.locator(".matrix .wrong a").first
    number.click()
    assert page.locator(number.get_attribute("href")).is_visible()
    assert page.locator("#photos .card").count() > 10


def test_the_page_prints(open_page: Any, tmp_path: Path) -> None:
    page = open_page()
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    printed = (tmp_path / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_comparison_is_read_and_sorted_without_a_serious_fault(
    open_page: Any, comparison: str, width: int, scheme: str
) -> None:
    page = open_page(width, scheme, at=comparison, bypass_csp=True)  # for axe's script alone
    assert page.evaluate("document.documentElement.scrollWidth") == width
    points = page.locator("#difference-0 th", has_text="points")
    points.get_by_role("button").click()
    assert points.get_attribute("aria-sort") == "ascending"
    cells = page.locator("#difference-0 tbody tr td:nth-child(4)").all()
    found = [float(cell.get_attribute("data-value")) for cell in cells]
    assert len(found) == len(CLASSES)
    assert found == sorted(found)
    assert page.locator("#photos .card svg[role=img]").count() > 10
    assert grave_faults(page) == []


def test_a_comparison_runs_nothing_but_its_own_script(open_page: Any, comparison: str) -> None:
    page = open_page(at=comparison)
    assert page.locator("#verdict .lead").inner_text().endswith(".")
    assert page.get_by_role("button", name="Dark").is_visible()
    assert page.locator("img").count() == 0


@pytest.mark.real
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_of_real_photos_is_used_from_top_to_bottom(
    open_page: Any, real_address: str, width: int, tmp_path: Path
) -> None:
    page = open_page(width, at=real_address, bypass_csp=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert grave_faults(page) == []
    number = page.locator(".matrix .wrong a").first
    number.click()
    assert page.locator(number.get_attribute("href")).locator("svg").first.is_visible()
    recall = page.locator("#classes th", has_text="recall").first
    recall.get_by_role("button").click()
    assert recall.get_attribute("aria-sort") == "ascending"
    page.locator("#photos .open").first.click()
    viewer = page.get_by_role("dialog")
    viewer.get_by_role("group").get_by_role("button").first.click()
    assert viewer.locator("svg image").count() == 1
    assert grave_faults(page, "dialog") == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Dark").click()
    assert grave_faults(page) == []
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
