"""The rules that stored notebooks keep, and proofs that a broken rule or a changed output does not pass."""

import base64
import copy
import io
import re
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from utils.cli import environment, notebooks

# A checked output must not tell where objects lie in memory, or how long something took.
FLEETING = re.compile(r"\b0x[0-9a-f]{6,}|\d ?(?:ms|µs|s|sec|seconds|minutes)\b")
LONGEST_CELL = 25
WIDEST_PRINT = 100  # characters; a wider line breaks inside words, on the page and in a window
LONGEST_PICTURE = 10  # lines of code beside a figure, unless they are folded


def faults(book, name=""):
    """What keeps `book`, stored under `name`, from being a notebook of ours; yields one str for each broken rule."""
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    checked = [cell for cell in code if notebooks.IGNORED not in tags(cell)]
    try:
        if notebooks.normalised(copy.deepcopy(book)) != book:
            yield "not as `python3 -m utils run` stores it"
    except ValueError as problem:
        yield str(problem)
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        yield "cells are not counted 1, 2, 3, …"
    if [cell for cell in code if "bootstrap" in tags(cell) and cell.source == opening(cell)] != code[:1]:
        yield "the first code cell is not the bootstrap cell"
    if not name.startswith("07") and sum(bool(c.outputs) for c in checked) < 0.8 * sum(bool(c.outputs) for c in code):
        yield "fewer than 80 % of the cells with output are compared"
    for cell in code:
        if len(cell.source.splitlines()) - folded(cell) > LONGEST_CELL and not {"utils", "long"} & tags(cell):
            yield f"cell {cell.execution_count} has more than {LONGEST_CELL} lines"
        if re.search("clear_output|update_display", cell.source):
            yield f"cell {cell.execution_count} redraws its output"
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                yield f"cell {cell.execution_count} failed"
            if {"image/svg+xml", "image/jpeg", "text/html"} & output.get("data", {}).keys():
                yield f"cell {cell.execution_count} stores what a page that is not trusted strips"
            printed = output.get("text", "") + output.get("data", {}).get("text/plain", "")
            if any(len(line) > WIDEST_PRINT for line in printed.splitlines()):
                yield f"cell {cell.execution_count} prints a line of more than {WIDEST_PRINT} characters"
    if not all(folded(cell) for cell in code if {"bootstrap", "solution"} & tags(cell) or cell.source[:7] == "# Check"):
        yield "the bootstrap cell, checks and solutions are not all folded"
    if not all(re.match("# [A-Z]", cell.source) for cell in code if folded(cell)):
        yield "a folded cell does not open with a comment, the title by which it is known"
    for cell in code:
        figure = any("image/png" in output.get("data", {}) for output in cell.outputs)
        if re.search(r"^plt\.show\(\)|^draw\(", cell.source, re.MULTILINE) and not figure:
            yield f"cell {cell.execution_count} draws, and no figure is stored"
        if figure and not folded(cell) and len(cell.source.splitlines()) > LONGEST_PICTURE:
            yield f"cell {cell.execution_count} draws in more than {LONGEST_PICTURE} lines, and is not folded"
    if name and f"plots.transformer_map({int(name[:2])})" not in "".join(cell.source for cell in code):
        yield "the map of the whole is not in it"
    for cell in book.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"\\\\[a-zA-Z]+", cell.source)):
            yield f"{found[0]} in a formula: one backslash too many"
    sections = [
        int(n) for c in book.cells for n in re.findall(r"^## (\d+)\. ", c.source * (c.cell_type == "markdown"), re.M)
    ]
    if sections != list(range(1, len(sections) + 1)):
        yield f"its sections are numbered {sections}"
    for cell in checked:
        if cell.source.endswith(";"):
            yield f"cell {cell.execution_count} hides its output by a semicolon, which nbval does not know"
        for output in cell.outputs:
            if output.get("text") == "":
                yield f"cell {cell.execution_count} had a progress bar, which nbval compares"
            if found := FLEETING.search(output.get("text", "") + output.get("data", {}).get("text/plain", "")):
                yield f"cell {cell.execution_count} prints {found[0]}, which another run will not"


def opening(cell):
    """The bootstrap cell of the address that `cell` names."""
    found = re.search(r'^REPOSITORY, BRANCH = "(?:https://github.com/([^"]*))?", "([^"]*)"', cell.source, re.MULTILINE)
    return notebooks.bootstrap(*found.groups()) if found else None


def folded(cell):
    """In JupyterLab and in Colab."""
    return bool(cell.metadata.get("jupyter", {}).get("source_hidden")) and cell.metadata.get("cellView") == "form"


def tags(cell):
    return set(cell.metadata.get("tags", []))


def code(source, count=None, output=None, **metadata):
    return new_code_cell(source, execution_count=count, outputs=[output] if output else [], metadata=metadata)


def text(words):
    return new_output("stream", name="stdout", text=words)


def png(mode="RGB", size=(8, 6)):
    """A picture, encoded as Jupyter has it."""
    file = io.BytesIO()
    Image.new(mode, size).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


PICTURE, SIZE = notebooks.smaller(png())


def test_a_picture_is_made_smaller_once_and_keeps_its_size():
    assert SIZE == {"width": 4, "height": 3}  # two pixels for each point
    assert notebooks.smaller(PICTURE) == (PICTURE, SIZE) and notebooks.smaller(png("RGBA"))[0] != png("RGBA")


def sample():
    """A sound notebook, as if it had been run."""
    figure = new_output("display_data", {"image/png": PICTURE, "text/plain": "<Figure size 640x480 with 1 Axes>"})
    figure.metadata = {"image/png": {"alt": "A rising line."} | SIZE}
    book = new_notebook(metadata=notebooks.METADATA)
    book.cells = [
        new_markdown_cell("# A notebook"),
        code(notebooks.BOOTSTRAP, 1, tags=["bootstrap"], jupyter={"source_hidden": True}, cellView="form"),
        code("print(1 + 1)", 2, text("2\n")),
        code("draw()", 3, figure),
        new_markdown_cell("*A rising line.*\n\nIt rises by 1."),
        code("1 / 0", 4, new_output("error", ename="E", evalue="", traceback=[]), tags=["raises-exception"]),
        code("print(3)", 5, text("3\n")),
        code("clock()", 6, text("0.1 s\n"), tags=[notebooks.IGNORED]),
        code("print(review)", 7, tags=[notebooks.IGNORED, notebooks.PRIVATE]),
    ]
    book.metadata = book.metadata | {"source_sha256": notebooks.source_sha256(book)}
    return book


def reading_minutes(book):
    """What is on the way (no exercises, optional sections, captions, sources): words / 90 + visible lines of code / 7 +
    3/4 (figures + Predicts), fitted to nine readings by people who had not seen the notebook.
    """
    minutes, on_the_way, after_figure = 0, True, False
    for cell in book.cells:
        if cell.cell_type == "markdown":
            body = cell.source
            if heading := re.match(r"## +(.*)", body):
                on_the_way = not re.search("^exercises|optional", heading[1].lower())
            if after_figure:  # its first line is the caption
                body = body.partition("\n")[2]
            body = re.split(r"^\*\*(?:Sources|Further reading)", body, flags=re.MULTILINE)[0]
            after_figure = False
            minutes += on_the_way * (len(body.split()) / 90 + 0.75 * body.count("**Predict"))
        else:
            after_figure = any("image/png" in output.get("data", {}) for output in cell.outputs)
            lines = 0 if folded(cell) else sum(bool(line.strip()) for line in cell.source.splitlines())
            minutes += on_the_way * (lines / 7 + 0.75 * after_figure)
    return minutes


@pytest.mark.parametrize("path", notebooks.notebook_paths(), ids=lambda path: path.name)
def test_promised_minutes(path):
    """The minutes of a notebook's first cell and of the README are the formula's, rounded to five."""
    book = nbformat.read(path, as_version=4)
    promised = int(re.search(r"(\d+) minutes", book.cells[0].source)[1])
    readme = (environment.ROOT / "README.md").read_text(encoding="utf8")
    in_readme = int(re.search(rf"\({re.escape(f'notebooks/{path.name}')}\) \| (\d+) \|", readme)[1])
    assert promised == in_readme == 5 * round(reading_minutes(book) / 5)


@pytest.mark.parametrize("path", notebooks.notebook_paths(), ids=lambda path: path.name)
def test_stored_notebook(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert list(faults(book, path.name)) == []


def test_the_readme_links_every_notebook():
    readme = (environment.ROOT / "README.md").read_text("utf8")
    assert sorted(set(re.findall(r"\(notebooks/([^)]+\.ipynb)\)", readme))) == [
        path.name for path in notebooks.notebook_paths()
    ]
    assert notebooks.notebook_paths()


BREAKS = {  # how to break a rule: what `faults` must then say
    "book.cells[0].source += '\\n## 1. One\\n## 3. Three'": "its sections are numbered",
    "book.cells[2].execution_count = None": "not counted",
    "book.cells[2].execution_count = 3": "not counted",
    "book.cells[1].source += ' '": "bootstrap",
    "book.cells[1].metadata.tags = []": "bootstrap",
    "book.cells[2:2] = [book.cells[1]]": "bootstrap",
    "book.cells[6].metadata.tags = [notebooks.IGNORED]": "80 %",
    "book.cells[2].source += 26 * chr(10) + '1'": "more than 25 lines",
    "book.cells[2].source += '; clear_output()'": "redraws",
    "book.cells[5].metadata = {}": "cell 4 failed",
    "book.cells[3].metadata |= book.cells[1].metadata | {'tags': []}": "does not open with a comment",
    "book.cells[2].outputs[0].text = 101 * '-'": "more than 100 characters",
    "book.cells[3].outputs[0].data['text/html'] = '<svg/>'": "not trusted strips",
    "book.cells[3].outputs[0].data['image/svg+xml'] = ''": "not trusted strips",
    "book.cells[2].outputs[0].text = '<object at 0x7f3a1b2c3d4e>'": "0x7f3a1b2c3d4e",
    "book.cells[2].outputs[0].text = 'took 12 s'": "2 s",
    "book.cells[2].outputs[0].text = 'source: toy'": "toy reviews",
    "book.cells[2].outputs[0].name = 'stderr'": "stderr",
    "book.cells[3].outputs[0].metadata = {}": "not as",
    "book.cells[4].source = '## The next section'": "no caption follows it",
    "del book.cells[4]": "no caption follows it",
    "book.cells[2].outputs[0] = new_output('display_data', {notebooks.WIDGET: {}})": "not as",
    "book.cells[2].metadata.scrolled = True": "not as",
    "book.metadata.widgets = {}": "not as",
    "book.cells[7].source += ' '": "not as",
    "book.cells[8].outputs = [new_output('stream', text='a review')]": "not as",
    "book.cells[7].outputs[0].text = '9 %' + chr(13) + '10 %'": "not as",
    "book.cells[4].source = '*A rising' + chr(10) + 'line.*'": "no caption follows it",
    "book.cells[2].source += ';'": "semicolon",
    "book.cells[2].outputs[0].text = ''": "progress bar",
    "del book.cells[1].metadata['cellView']": "not all folded",
    "del book.cells[1].metadata['jupyter']": "not all folded",
    "book.cells[3].source += 10 * (chr(10) + '1')": "draws in more than 10 lines",
    "book.cells[3].outputs = []": "no figure",
    "book.cells[4].source += '**Predict** it.'; del book.cells[5]": "not as",
    "book.cells[2].metadata.jupyter = {'outputs_hidden': True}": "not as",
    "book.cells[0].source = '$' + 2 * chr(92) + 'alpha$'": "one backslash too many",
}


@pytest.mark.parametrize("change", BREAKS)
def test_a_broken_rule_is_found(change):
    book = sample()
    assert list(faults(book)) == []
    exec(change, {"book": book, "notebooks": notebooks, "new_output": new_output, "code": code})
    assert BREAKS[change] in "\n".join(faults(book))


def test_nbval_fails_on_a_changed_output(tmp_path):
    cells = {"same": (1, text("2\n")), "changed": (1, text("3\n")), "never_run": (None, None)}
    for name, (count, output) in cells.items():
        nbformat.write(new_notebook(cells=[code("print(1 + 1)", count, output)]), tmp_path / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "-rA", *notebooks.NBVAL, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert said.returncode == 1
    results = set(re.findall(r"^(PASSED|FAILED) (\w+)", said.stdout, re.MULTILINE))
    # The last is why `faults` wants every cell counted.
    assert results == {("PASSED", "same"), ("FAILED", "changed"), ("PASSED", "never_run")}


def run(path, *options):
    notebooks.run([*options, str(path)])
    return path.read_bytes()


def test_a_second_run_changes_no_byte(tmp_path, capsys):
    path = tmp_path / "one.ipynb"
    book = new_notebook(
        cells=[
            code("import time\nprint('slow', flush=True)\ntime.sleep(0.3)\nprint('é')"),
            code("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"),
            new_markdown_cell("*A rising line.*"),
            code("print(time.time_ns())", tags=[notebooks.IGNORED]),
            code("print('a review')", tags=[notebooks.IGNORED, notebooks.PRIVATE]),
        ]
    )
    nbformat.write(book, path)
    first = run(path)
    stored = nbformat.read(path, as_version=4)
    assert [cell.execution_count for cell in stored.cells if cell.cell_type == "code"] == [1, 2, 3, 4]
    assert [cell.id for cell in stored.cells] == [cell.id for cell in book.cells]
    assert stored.cells[0].outputs == [text("slow\né\n")]
    assert stored.cells[1].outputs[-1].metadata["image/png"]["alt"] == "A rising line."
    assert b"matplotlib" not in base64.b64decode(stored.cells[1].outputs[-1].data["image/png"]).lower()
    assert stored.cells[-1].outputs == []
    assert run(path) == first
    assert "unchanged" in capsys.readouterr().out
    assert run(path, "--force") != first

    stored.cells[3].source = "print('edited')"  # an ignored cell, yet its output is then another code's
    notebooks.write(stored, path)
    run(path)
    assert nbformat.read(path, as_version=4).cells[3].outputs == [text("edited\n")]


@pytest.mark.parametrize(
    "source, complaint",
    [
        ("1 / 0", "ZeroDivisionError"),
        ("print('source: toy')", "toy reviews"),
        ("import sys; print('oh', file=sys.stderr)", "writes to stderr"),
    ],
)
def test_a_run_that_fails_stores_nothing(tmp_path, source, complaint):
    path = tmp_path / "one.ipynb"
    nbformat.write(new_notebook(cells=[code("print(1)"), code(source)]), path)
    before = path.read_bytes()
    with pytest.raises(SystemExit, match=complaint):
        run(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
