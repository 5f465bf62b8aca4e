"""`python3 -m utils site`: static pages of all notebooks, whose sliders move without a kernel.

We use nbconvert's Markdown parser but not its exporter, which adds 300 kB of style sheets and fetches MathJax from
elsewhere. Formulas become MathML, which today's browsers draw without scripts or extra fonts, and which can be printed
and read aloud.
"""

import ast
import base64
import io
import re
import shutil
import symtable
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jinja2
import nbformat
import pygments
from IPython.core.inputtransformer2 import TransformerManager
from latex2mathml.converter import convert
from markupsafe import Markup
from nbclient import NotebookClient
from nbconvert.filters.ansi import ansi2html
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from utils.cli import environment, notebooks, publish
from utils.files import read_table

SITE = environment.ROOT / ".site"
PAGES = Path(__file__).parent / "pages"  # templates, the style sheet, the lecture's ideas, what runs in a kernel
SLIDER = "ipywidgets.interact("
TYPED = ("06_decoder", "07_imdb")  # their widgets are boxes for any text, so nothing can be drawn in advance


def main(args):
    """Build static pages of all notebooks in .site; the old ones stay until the new ones are complete."""
    start = time.perf_counter()
    new, old = (SITE.with_name(f"{SITE.name}.{kind}") for kind in ("part", "old"))
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    build(new)
    if SITE.exists():
        SITE.rename(old)
    new.rename(SITE)
    shutil.rmtree(old, ignore_errors=True)
    print(f"Built in {time.perf_counter() - start:.0f} s: {(SITE / 'index.html').as_uri()}")
    return 0


def build(folder):
    """Write all pages into `folder`, which is new."""
    folder.mkdir()
    books = {path.stem: nbformat.read(path, as_version=4) for path in notebooks.notebook_paths()}
    # The notebook that takes longest comes first. What a slider needs is found before any thread starts, because Python
    # 3.11 counts the depth of `ast.parse` for all threads together (python/cpython#106905).
    moving = {name: slider_cells(books[name]) for name in reversed(books) if name not in TYPED}
    with ThreadPoolExecutor(2) as pool:
        drawn = pool.map(lambda name: draw_frames(moving[name], folder / name), moving)
        sliders = dict(zip(moving, drawn))
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("xcode", "github-dark"))
    dark = f"@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}"
    style = (PAGES / "style.css").read_text("utf8")
    (folder / "style.css").write_text(f"{light}\n{dark}\n{style}", "utf8")

    pages = {}
    for name, book in books.items():
        renderer, cells, section_of = Renderer(), [], {}
        for cell in book.cells:
            if cell.cell_type == "markdown":
                cells.append({"id": cell.id, "text": Markup(MarkdownWithMath(renderer).render(cell.source))})
            else:
                cells.append(code(cell, folder / name, sliders.get(name) if SLIDER in cell.source else None))
            section_of[cell.id] = renderer.contents[-1][-1]
        (_, _, title), *contents = renderer.contents
        paragraphs = publish.without_badges(book.cells[0].source).split("\n\n")[1:]
        promise = next((text for text in paragraphs if "ou will" in text), paragraphs[0])
        page = {"name": name, "title": title, "promise": promise, "cells": cells}
        pages[name] = page | {"contents": contents, "section_of": section_of}
    template, order = templates().get_template, list(pages.values())
    for before, page, after in zip([None, *order], order, [*order[1:], None]):
        html = template("notebook.html").render(page=page, before=before, after=after)
        (folder / f"{page['name']}.html").write_text(html, "utf8")
    html = template("index.html").render(pages=pages, ideas=read_table(PAGES / "ideas.tsv"))
    (folder / "index.html").write_text(html, "utf8")


class Renderer(IPythonRenderer):
    """Markdown to HTML; keeps the headings in `contents`: (level, anchor, HTML)."""

    def __init__(self):
        super().__init__(escape=False)
        self.contents = []

    def heading(self, text, level, **_):
        text = Markup(text)
        anchor = text.striptags().replace(" ", "-")  # as JupyterLab makes them
        self.contents.append((level, anchor, text))
        return Markup('<h{0} id="{1}">{2}</h{0}>\n').format(level, anchor, text)

    def inline_math(self, body):
        return formula(body)

    def block_math(self, body):
        return f'<span class="wide">{formula(body, "block")}</span>'

    def table(self, text):
        return f'<div class="wide"><table>{text}</table></div>\n'

    def link(self, text, url, title=None):
        ours = not re.match(r"\w+:", url)  # an absolute address leads to a different site
        return super().link(text, re.sub(r"\.ipynb(?=#|$)", ".html", url) if ours else url, title)

    def image(self, text, url, title=None):
        return text  # a badge, which would be fetched


def formula(body, display="inline"):
    """MathML, in which names of several letters stand upright."""
    return re.sub(r"<mi>(?=\w\w)", '<mi mathvariant="normal">', convert(body, display=display))


def templates():
    """The Jinja environment of the page templates, with filters for Markdown, code, and a terminal's colours."""
    loader = jinja2.FileSystemLoader(PAGES)
    found = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    python, html = get_lexer_by_name("ipython3"), HtmlFormatter()
    found.filters["markdown"] = lambda text: Markup(MarkdownWithMath(Renderer()).render(text))
    found.filters["python"] = lambda source: Markup(pygments.highlight(source, python, html))
    found.filters["terminal"] = lambda text: Markup(ansi2html(text))
    return found


def code(cell, folder, slider):
    """What the template needs of a code cell; its pictures become files in `folder`."""
    tags, pictures = cell.metadata.get("tags", []), []
    for output in cell.outputs:
        if "image/png" in output.get("data", {}):
            data = base64.b64decode(output.data["image/png"])
            alt = output.metadata["image/png"]["alt"]
            pictures.append(picture(data, folder / f"{cell.id}-{len(pictures)}.png", alt))
    return {
        "id": cell.id,
        "source": cell.source,
        "folded": "source_hidden" in cell.metadata.get("jupyter", {}),
        "title": (re.match("# (.*)", cell.source) or ("", "The code"))[1].replace("`", ""),
        "solution": "solution" in tags,
        "closed": notebooks.PREDICTED.items() <= cell.metadata.get("jupyter", {}).items(),
        "outputs": cell.outputs,
        "pictures": pictures,
        "widget": SLIDER in cell.source,
        "slider": slider,
    }


def picture(data, path, alt):
    """Keep an encoded image at `path`; returns what <img> needs. Our figures have two pixels for each point."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    width, height = (size // 2 for size in Image.open(io.BytesIO(data)).size)
    return {"src": f"{path.parent.name}/{path.name}", "alt": alt, "width": width, "height": height}


def slider_cells(book):
    """The sources of the bootstrap cell, of the cells that the notebook's slider needs, and of the slider's cell."""
    [last] = [i for i, cell in enumerate(book.cells) if cell.cell_type == "code" and SLIDER in cell.source]
    bootstrap, *sources = (cell.source for cell in book.cells[: last + 1] if cell.cell_type == "code")
    return [bootstrap, *needed(sources)]


def draw_frames(sources, folder):
    """Draw what a slider shows at each of its positions. A kernel runs `sources`, the last of which is the slider's
    cell.
    """
    *before, widget = sources
    frames = (PAGES / "frames.py").read_text("utf8")
    small = new_notebook(cells=[new_code_cell(source) for source in (*before, frames, widget)])
    resources = {"metadata": {"path": str(notebooks.FOLDER)}}
    options = {"kernel_name": "python3", "extra_arguments": notebooks.KERNEL_OPTIONS, "resources": resources}
    NotebookClient(small, timeout=600, shutdown_kernel="immediate", **options).execute()
    found, *drawn = (output.data for output in small.cells[-1].outputs if "data" in output)
    slider = found["application/json"]
    slider["frames"] = []
    for i, (value, frame) in enumerate(zip(slider.pop("values"), drawn, strict=True)):
        said, smaller = f"{slider['name']} = {value}", io.BytesIO()
        Image.open(io.BytesIO(base64.b64decode(frame["image/png"]))).save(smaller, "webp", lossless=True)
        shown = picture(smaller.getvalue(), folder / f"slider-{i}.webp", f"The figure above, drawn for {said}.")
        slider["frames"].append(shown | {"value": value, "said": said})
    return slider


def needed(sources):
    """The last cell, and those that it needs: for each name that is read, the nearest cell above that binds it."""
    late = set()  # names read within functions, which may be bound after these are defined
    while True:
        wanted, found, later = late, [], set()
        for source in reversed(sources):
            bound, read, within = names(source)
            if not found or bound & wanted:
                found.insert(0, source)
                wanted, later = wanted - bound | read, later | within
        if later <= late:
            return found
        late |= later


def names(source):
    """The global names that a cell binds, or changes a part of; those that it reads; those read within functions."""
    source = TransformerManager().transform_cell(source)  # ! and % as Python
    top = symtable.symtable(source, "cell", "exec")
    bound = {one.get_name() for one in top.get_symbols() if one.is_assigned() or one.is_imported()}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            bound |= {part.id for part in ast.walk(node.value) if isinstance(part, ast.Name)}
    read = {one.get_name() for one in top.get_symbols() if one.is_referenced()}
    within, scopes = set(), top.get_children()
    for scope in scopes:  # the list grows during the loop
        scopes += scope.get_children()
        outside = {one.get_name() for one in scope.get_symbols() if one.is_global()}
        read |= outside
        within |= set() if re.fullmatch("(list|set|dict)comp|genexpr", scope.get_name()) else outside
    return bound, read, within
