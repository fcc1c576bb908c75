"""The microscope in a browser: clicks, keys, search, accessibility, and nothing from outside."""

import re
from pathlib import Path

import keras
import pytest
from PIL import Image

from cnnkit import write_microscope
from tests.helpers import browser as browsers
from tests.helpers.evaluation_networks import SIZE, write_folder

CLASSES = ("cats & dogs", "wheels", "zebras")
UNITS = {"conv1": 14, "conv2": 13}
CLICKED = (0, 4, 12)
# Of links in a drawing, `href` is not a text.
SHOW_LINKS = "all => all.map(one => new URL(one.getAttribute('href'), location).href)"
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    browsers.find_chromium()
    root = tmp_path_factory.mktemp("browser")
    dataset = write_folder(root / "images", CLASSES)
    keras.utils.set_random_seed(1)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 128, offset=-1)(inputs)
    for name, units in UNITS.items():
        x = keras.layers.Conv2D(units, 3, activation="relu", name=name)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x), name="small")
    kernel, bias = model.get_layer("conv2").get_weights()
    bias[4] = -1000  # A unit that never fires.
    model.get_layer("conv2").set_weights([kernel, bias])
    return write_microscope(model, f"folder:{dataset}", root / "site", images=3).parent


@pytest.fixture(scope="module")
def window(site, tmp_path_factory):
    with browsers.open_browser(tmp_path_factory.mktemp("profile")) as (page, records):
        yield page, records


@pytest.fixture
def page(site, window):
    """The first page; after the test, nothing was asked of others and nothing went wrong."""
    page, records = window
    records.requests.clear()
    records.problems.clear()
    page.set_viewport_size(DESKTOP)
    page.goto(f"{site.as_uri()}/index.html")
    yield page
    assert records.requests
    assert [one for one in records.requests if not one.startswith(f"{site.as_uri()}/")] == []
    assert records.problems == []


def title(page):
    return page.inner_text("h1")


def wait_for_title(page, expected):
    # The policy of the pages forbids the functions that Playwright would wait for.
    from playwright.sync_api import expect

    expect(page).to_have_title(expected)
    # The script of a page runs before its load event.
    page.wait_for_load_state()


def broken(page, site):
    """Addresses of a page that lead nowhere, and pictures that do not load."""
    links = page.eval_on_selector_all("a[href]", SHOW_LINKS)
    assert links
    files = {one.split("#")[0].removeprefix(f"{site.as_uri()}/") for one in links}
    # Pictures are loaded when they come into view.
    pictures = page.evaluate(
        """() => Promise.all([...document.images].map(async (one) => {
            one.loading = "eager";
            await one.decode().catch(() => null);
            return one.naturalWidth ? "" : one.src;
        }))"""
    )
    return [one for one in files if not (site / one).is_file()] + [one for one in pictures if one]


def test_units_open_by_clicks(page, site):
    """Some of them; the pages that the others lead to are read without the browser."""
    assert title(page) == "small"
    assert broken(page, site) == []
    for layer, units in UNITS.items():
        page.click(f"main table a:text-is('{layer}')")
        wait_for_title(page, layer)
        assert broken(page, site) == []
        links = page.eval_on_selector_all(
            "#units a", "all => all.map(one => [one.querySelector('b').innerText, one.href])"
        )
        assert sorted(int(number) for number, _ in links) == list(range(units))
        for number, address in links:
            file = Path(address.removeprefix("file://"))
            text = file.read_text()
            assert f"<title>{layer}, unit {number}</title>" in text
            pictures = re.findall(r'<img [^>]*src="([^"]+)"', text)
            assert len(pictures) == (0 if (layer, number) == ("conv2", "4") else 3)
            for one in pictures:
                with Image.open(file.parent / one) as picture:
                    picture.load()
        for unit in CLICKED:
            page.click(f"#units a:has(b:text-is('{unit}'))")
            wait_for_title(page, f"{layer}, unit {unit}")
            assert title(page) == f"{layer}, unit {unit}"
            assert broken(page, site) == []
            assert page.locator("img").count() == (0 if (layer, unit) == ("conv2", 4) else 3)
            page.click("nav a[rel=up]")
        page.click("nav a:text-is('small')")


def test_the_keyboard_turns_pages(page):
    page.click("main table a:text-is('conv1')")
    wait_for_title(page, "conv1")
    page.keyboard.press("ArrowRight")
    wait_for_title(page, "conv2")
    page.click("#units a:has(b:text-is('7'))")
    wait_for_title(page, "conv2, unit 7")
    for key, expected in (
        ("ArrowRight", "conv2, unit 8"),
        ("ArrowLeft", "conv2, unit 7"),
        ("ArrowLeft", "conv2, unit 6"),
        ("u", "conv2"),
    ):
        page.keyboard.press(key)
        wait_for_title(page, expected)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    # In the field the keys are letters.
    page.keyboard.type("u/")
    assert (title(page), page.input_value("#search")) == ("conv2", "u/")


def test_keys_are_told_only_where_there_is_a_keyboard(page, site, window):
    """A phone has neither a pointer that hovers nor a fine one."""
    address = f"{site.as_uri()}/conv1/unit-0003.html"
    page.goto(address)
    keys = page.locator(".keys")
    assert keys.is_visible()
    assert keys.inner_text().startswith("keys: ")
    phone = page.context.browser.new_context(has_touch=True, is_mobile=True, viewport=PHONE)
    try:
        other = phone.new_page()
        other.goto(address)
        assert other.inner_text("h1") == "conv1, unit 3"
        assert other.locator(".keys").count() == 1
        assert not other.locator(".keys").is_visible()
    finally:
        phone.close()


def test_the_search_finds_layers_units_and_classes(page, site):
    page.click("#search")
    page.keyboard.type("conv2 UNIT 12")
    page.wait_for_selector("#results li")
    assert page.locator("#results b").all_text_contents() == ["conv2 unit 12"]
    page.fill("#search", "zebras")
    found = page.locator("#results li").all_text_contents()
    assert len(found) > 5
    assert all("zebras" in one for one in found)
    assert broken(page, site) == []
    page.fill("#search", "no such thing")
    assert page.inner_text("#results") == "0 results"
    page.fill("#search", "dogs conv1")
    page.click("#results a >> nth=0")
    wait_for_title(page, re.compile("conv1, unit"))
    assert "cats & dogs" in page.inner_text("main table >> nth=0")
    page.fill("#search", "x")
    page.fill("#search", "")
    assert page.is_hidden("#results")


def test_units_are_sorted_and_shown_as_chosen(page):
    page.click("main table a:text-is('conv1')")
    wait_for_title(page, "conv1")

    def numbers():
        return [int(one) for one in page.locator("#units b").all_text_contents()]

    def data(name):
        return page.eval_on_selector_all(
            "#units li", f"items => items.map(one => Number(one.dataset.{name}))"
        )

    assert data("activation") == sorted(data("activation"), reverse=True)
    page.select_option("#order", label="number")
    assert numbers() == list(range(UNITS["conv1"]))
    page.select_option("#order", label="fires most rarely")
    assert data("rate") == sorted(data("rate"))
    page.select_option("#order", label="class selectivity")
    assert data("selectivity") == sorted(data("selectivity"), reverse=True)
    position = "one => getComputedStyle(one).objectPosition"
    pictures = page.locator("#units img.half").first
    assert pictures.evaluate(position).startswith("0%")
    page.check("input[value=projections]")
    assert pictures.evaluate(position).startswith("100%")
    page.check("input[value=kernels]")
    assert page.locator("#units img.kernel").first.is_visible()
    assert not pictures.is_visible()


def test_classes_and_images_lead_on_and_the_square_moves(page, site):
    page.click("main a:text-is('Classes')")
    page.click("main a:text-is('wheels')")
    wait_for_title(page, "wheels")
    assert broken(page, site) == []
    page.keyboard.press("ArrowRight")
    wait_for_title(page, "zebras")
    page.goto(f"{site.as_uri()}/images/index.html")
    page.click("main li a >> nth=0")
    page.wait_for_selector("#place")
    page.wait_for_load_state()
    assert broken(page, site) == []
    square = page.locator(".square")
    before, words = square.bounding_box(), page.inner_text("#covered")
    page.focus("#place")
    page.keyboard.press("Home")
    assert page.inner_text("#covered").startswith("row 0, column 0: ")
    first = square.bounding_box()
    # The next place is to the right of it.
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#covered").startswith("row 0, column 1: ")
    second = square.bounding_box()
    assert (second["x"] > first["x"]) and abs(second["y"] - first["y"]) < 0.1
    page.keyboard.press("End")
    last = square.bounding_box()
    assert first["x"] < last["x"]
    assert first["y"] < last["y"]
    image = page.locator("#occlusion img").bounding_box()
    assert abs(last["x"] + last["width"] - image["x"] - image["width"]) < 2
    assert abs(first["width"] - image["width"] / 6) < 1
    assert (before, words) != (last, page.inner_text("#covered"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_accessibility_fault_or_is_too_wide(page, site, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page.emulate_media(color_scheme=scheme)
    axe = Axe()
    shown = (
        "index.html", "conv1/index.html", "conv1/unit-0003.html", "conv2/unit-0004.html",
        "classes/index.html", "classes/class-0001.html",
        "images/index.html", "images/image-000000.html",
    )  # fmt: skip
    for address in shown:
        page.goto(f"{site.as_uri()}/{address}")
        if address == shown[0]:
            page.click("#search")
            page.keyboard.type("zebras")
            page.wait_for_selector("#results li")
        for size in (DESKTOP, PHONE):
            page.set_viewport_size(size)
            # What axe would load by itself, the policy of the pages forbids.
            found = axe.run(page, options={"preload": False}).response["violations"]
            serious = [
                (one["id"], one["help"], [node["html"] for node in one["nodes"]][:2])
                for one in found
                if one["impact"] in ("serious", "critical")
            ]
            assert serious == [], (address, scheme, size)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], address
        page.set_viewport_size(DESKTOP)
