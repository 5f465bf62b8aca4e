"""The static pages, as they are built and as a browser shows them: wide and narrow, light and dark, by keyboard."""

import re
import threading
from html.parser import HTMLParser

import nbformat
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from utils.cli import notebooks
from utils.files import read_table
from utils.tests.test_browser import browser  # noqa: F401

pytest.importorskip("latex2mathml", reason="no pages without latex2mathml: python3 -m pip install latex2mathml")
from utils.cli import site  # noqa: E402

NAMES = [path.stem for path in notebooks.notebook_paths()]
IDEAS = read_table(site.PAGES / "ideas.tsv")
WEIGHT = 1_500_000  # bytes, of all that comes before a slider is touched


class Page(HTMLParser):
    """What a page holds: `ids`, `links`, `images` (attributes), `formulas`, `sliders` (attributes)."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.images, self.formulas, self.sliders = [], [], [], 0, []
        self.feed(path.read_text("utf8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs["href"]] if tag == "a" else []
        self.images += [attrs] if tag == "img" else []
        self.formulas += tag == "math"
        self.sliders += [attrs] if attrs.get("type") == "range" else []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All pages, built as `python3 -m utils site` builds them."""
    folder = tmp_path_factory.mktemp("site") / "pages"
    site.build(folder)
    return folder


@pytest.fixture(scope="module")
def pages(folder):
    return {path.stem: Page(path) for path in folder.glob("*.html")}


@pytest.mark.parametrize("idea", IDEAS, ids=lambda row: f"{row['notebook'][:2]}-{row['cell']}")
def test_each_idea_leads_to_its_cell(idea):
    cells = nbformat.read(notebooks.FOLDER / f"{idea['notebook']}.ipynb", as_version=4).cells
    assert [idea["shows"] in cell.source for cell in cells if cell.id == idea["cell"]] == [True]


def test_each_link_leads_somewhere(pages):
    assert pages.keys() == {*NAMES, "index"}
    for name, page in pages.items():
        assert len(set(page.ids)) == len(page.ids)
        for link in page.links:
            if not re.match("https?://", link):
                target, _, anchor = link.partition("#")
                assert not anchor or anchor in pages[target.removesuffix(".html") or name].ids, link


def test_each_page_is_light(folder, pages):
    for name, page in pages.items():
        files = [f"{name}.html", "style.css", *{image["src"] for image in page.images}]
        assert sum((folder / file).stat().st_size for file in files) < WEIGHT, name


def test_each_formula_is_there(pages):
    for name in NAMES:
        cells = nbformat.read(notebooks.FOLDER / f"{name}.ipynb", as_version=4).cells
        texts = (re.sub("`[^`]*`", "", cell.source) for cell in cells if cell.cell_type == "markdown")
        written = sum(len(re.findall(r"\$\$.+?\$\$|\$.+?\$", text, re.DOTALL)) for text in texts)
        assert pages[name].formulas >= written > 0  # the contents repeat those in headings


def test_no_mark_is_left_over(folder):
    """An asterisk that Markdown takes for text, as in *if* big *becomes* small*, it …*, would be on the page."""
    for name in NAMES:
        page = re.sub(
            r"<(pre|code|math|script|style)\b.*?</\1>", "", (folder / f"{name}.html").read_text("utf8"), flags=re.DOTALL
        )
        assert not re.findall(r".*\*.*", re.sub("<[^>]*>", "", page)), name


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"), dtype=float)


def test_the_slider_starts_with_the_stored_picture(folder, pages):
    """So the cells that it needs were found: no other place of the slider gives a picture nearer to the stored one.

    Where a model is trained first, another processor rounds otherwise and the picture shows other weights: not there.
    """
    assert {name for name, page in pages.items() if page.sliders} == {*NAMES} - {*site.TYPED}
    compared = set()
    for path in notebooks.notebook_paths():
        name, page = path.stem, pages[path.stem]
        if not page.sliders or any(
            "backward(" in cell for cell in site.slider_cells(nbformat.read(path, as_version=4))
        ):
            continue
        compared.add(name)
        [(stored, start)] = [pair for pair in zip(page.images, page.images[1:]) if "/slider-" in pair[1]["src"]]
        wanted = pixels(folder / stored["src"])
        shown = {path.name: pixels(path) for path in folder.glob(f"{name}/slider-*")}
        apart = {one: np.abs(it - wanted).mean() for one, it in shown.items() if it.shape == wanted.shape}
        assert min(apart, key=apart.get) == start["src"].split("/")[1], name
        assert min(apart.values()) < 1, name  # of 255: the stored picture has only 256 colours
    assert len(compared) >= 5


def test_what_a_slider_needs_is_found_before_any_thread_starts(tmp_path, monkeypatch):
    """In two threads at once, `ast.parse` fails now and then under Python 3.11."""
    threads, plain = set(), site.needed
    monkeypatch.setattr(site, "draw_frames", lambda sources, folder: None)
    monkeypatch.setattr(site, "needed", lambda sources: threads.add(threading.current_thread()) or plain(sources))
    site.build(tmp_path / "pages")
    assert threads == {threading.main_thread()}


def test_needed_cells():
    cells = """
!echo %s
data = torch.zeros(3)
unused = data + 1
data[0] = 1
def draw(x): return helper(x) + data
def helper(x): return x
helper.scale = 2
other = draw(1)
interact(draw, x=(0, 1))
"""
    cells = cells.strip().splitlines()
    left_out = {"!echo %s", "unused = data + 1", "other = draw(1)"}
    assert site.needed(cells) == [cell for cell in cells if cell not in left_out]


def test_no_badge_is_fetched():
    badge = "[![Open in Colab](https://example.org/badge.svg)](https://example.org/open)"
    assert "<img" not in site.templates().filters["markdown"](badge)


def test_a_build_that_fails_leaves_the_old_pages(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "SITE", tmp_path / "pages")
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/index.html").write_text("old")
    monkeypatch.setattr(site, "draw_frames", lambda sources, folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        site.main([])
    assert (tmp_path / "pages/index.html").read_text() == "old"
    monkeypatch.setattr(site, "build", lambda folder: folder.mkdir())
    assert site.main([]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["pages"] and not list((tmp_path / "pages").iterdir())


PROSE = """() => {
    const copy = document.querySelector("main").cloneNode(true);
    copy.querySelectorAll("pre, code, script, style").forEach(part => part.remove());
    return copy.textContent;
}"""
SHOWN = """async () => {
    const images = [...document.images];
    images.forEach(image => { image.loading = "eager"; });
    await Promise.all(images.map(image => image.decode()));
    const small = part => !(part.getBoundingClientRect().width > 2 && part.getBoundingClientRect().height > 5);
    return {
        blank: images.filter(image => !image.alt.trim() || !image.naturalWidth).map(image => image.src),
        formulas: [...document.querySelectorAll("main math")].filter(
            part => small(part) || !getComputedStyle(part).display.includes("math")).length,
    };
}"""
# Of code one word in each colour is enough to look at: axe would take minutes for all.
ONE_OF_EACH = """() => {
    const seen = new Set();
    document.querySelectorAll(".highlight span").forEach(part => {
        if (part.className && seen.has(part.className)) part.replaceWith(part.textContent);
        seen.add(part.className);
    });
}"""
WIDE = "[document.documentElement.scrollWidth, innerWidth]"


@pytest.mark.parametrize("name", ["index", *NAMES])
def test_in_a_browser(browser, folder, pages, name):  # noqa: F811
    asked, said = [], []
    with browser.new_page() as page:
        page.set_viewport_size({"width": 360, "height": 780})
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda problem: said.append(str(problem)))
        page.goto((folder / f"{name}.html").as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
        content, window = page.evaluate(WIDE)
        assert content <= window == 360
        assert page.evaluate(SHOWN) == {"blank": [], "formulas": 0}
        assert not re.search(r"\$|\\[a-z]+", page.evaluate(PROSE))
        assert sum("/slider-" in url for url in asked) == len(pages[name].sliders)  # the first frame alone
        for form in page.locator("form").all():
            try_slider(form)

        page.evaluate(ONE_OF_EACH)
        for scheme, rules in {"light": {}, "dark": {"runOnly": ["color-contrast"]}}.items():
            page.emulate_media(color_scheme=scheme)
            found = Axe().run(page, options={"preload": False, "resultTypes": ["violations"]} | rules)
            grave = [one for one in found.response["violations"] if one["impact"] in ("serious", "critical")]
            assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in grave] == []
    assert said == []
    assert [url for url in asked if not url.startswith((folder.as_uri(), "data:"))] == []


def try_slider(form):
    """By keyboard and by mouse: picture, its text, what is said of the slider."""
    slider, picture = form.locator("input"), form.locator("img")

    def state():
        picture.evaluate("image => image.decode()")
        return (
            picture.get_attribute("src"),
            picture.get_attribute("alt"),
            slider.get_attribute("aria-valuetext"),
            form.locator("output").inner_text(),
        )

    states = [state()]
    slider.focus()
    for use in (
        lambda: slider.press("ArrowRight"),
        lambda: slider.press("End"),
        lambda: slider.click(position={"x": 0.7 * slider.bounding_box()["width"], "y": 5}),
    ):
        use()
        states.append(state())
    for values in zip(*states):
        assert len(set(values)) == len(values), values
    assert slider.get_attribute("aria-valuetext") in picture.get_attribute("alt")
