"""Every notebook in a real JupyterLab: run from top to bottom, each slider moved, each text box filled, then saved.

Only with `python3 -m utils test --browser`, and on the toy reviews. What ran is read from the notebook's model in the
page, which holds every cell; the widgets are tried where the reader finds them, on the page.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Error, sync_playwright

from utils.cli import environment, notebooks
from utils.cli.doctor import find_browser

NO_BROWSER = f"""No notebook was tried in a browser. Get one, then run this again:
  sudo apt install chromium    (Debian; elsewhere: {sys.executable} -m playwright install chromium)"""
ROOT_USER = hasattr(os, "geteuid") and os.geteuid() == 0

SETTINGS = {"notebook-extension/tracker": {"windowingMode": "none"}}  # no cell left out of the page
READY = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status == 'idle'"
CELLS = """[...jupyterapp.shell.currentWidget.content.model.cells].filter(cell => cell.type == "code").map(cell => {
    const {source, metadata, outputs, execution_count} = cell.toJSON();
    const error = metadata.tags?.includes("raises-exception") ? null : outputs.find(one => one.output_type == "error");
    return {
        title: source.split("\\n")[0],
        count: execution_count,
        error: error && `${error.ename}: ${error.evalue}`,
        widgets: outputs.filter(one => one.data?.["application/vnd.jupyter.widget-view+json"]).length,
    };
})"""
# The kernel's status is that of cells alone: a widget's messages are worked on beside them.
WATCH = """() => {
    window.busy = new Set();
    jupyterapp.shell.currentWidget.sessionContext.iopubMessage.connect((_, {parent_header, content}) => {
        if (content.execution_state == "busy") busy.add(parent_header.msg_id);
        if (content.execution_state == "idle") busy.delete(parent_header.msg_id);
    });
}"""
VIEWS = ".jp-Cell-outputArea > .jp-OutputArea-child > .jp-OutputArea-output:not([data-mime-type])"
NOT_DRAWN = ":not(.lm-mod-hidden):not(:has(> .lm-Widget))"  # a finished progress bar may hide
FAILED = "[data-mime-type$=error], [data-mime-type$=stderr]"
SLIDERS, BOXES = ".noUi-handle", ".widget-text input[type=text]"
OTHERS = "select, button, textarea, input:not([type=text])"
MESSAGES = ".jp-Dialog, .Toastify__toast"


def launch(playwright):
    """A browser that was started, None without one."""
    for where in ({"executable_path": find_browser()}, {"channel": "chrome"}, {"channel": "msedge"}, {}):
        if None not in where.values():
            with contextlib.suppress(Error):
                return playwright.chromium.launch(chromium_sandbox=not ROOT_USER, **where)
    return None


@pytest.fixture(scope="module")
def browser(request, notices):
    """A headless browser: one on the PATH, else what Playwright finds or has. It stops what browsers do unasked.

    What it gives is one context for all pages, so that JupyterLab's own files are fetched once.
    """

    def skip_loudly():
        notices.append(("!", "NO BROWSER", NO_BROWSER))
        pytest.skip("NO BROWSER: see the end")

    if not request.config.getoption("--browser", default=False):
        pytest.skip("runs with --browser only")
    with sync_playwright() as playwright, launch(playwright) or skip_loudly() as started:
        context = started.new_context(viewport={"width": 1280, "height": 1000})
        context.set_default_timeout(120_000)  # beside other jobs a page takes its time
        yield context


@pytest.fixture(scope="module")
def lab(browser, notices, tmp_path_factory):
    """`python -m utils lab` on a copy of the repository without IMDB, and with nothing of the user's own Jupyter.

    Gives `folder`, that of the copy's notebooks; `address(name)` of a page; `pictures`, a folder; `ask(path, method)`;
    `worked()`, the seconds that its kernels have computed.
    """
    root, home, pictures = map(tmp_path_factory.mktemp, ("repository", "jupyter", "pictures"))
    shutil.copytree(environment.ROOT / "utils", root / "utils", ignore=shutil.ignore_patterns("__pycache__"))
    for folder, paths in {
        "data": (environment.ROOT / "data").glob("*.tsv"),
        "notebooks": notebooks.notebook_paths(),
    }.items():
        (root / folder).mkdir()
        for path in paths:
            shutil.copy(path, root / folder)
    for name, setting in SETTINGS.items():
        path = home / "lab" / "user-settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(setting))

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = secrets.token_hex()
    own = {key: value for key, value in os.environ.items() if not re.match("(?i)JUPYTER|IMDB|.*_PROXY$", key)}
    own |= {f"JUPYTER_{kind}_DIR": str(home) for kind in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"IPYTHONDIR": str(home), "JUPYTER_TOKEN": token, "JUPYTER_PREFER_ENV_PATH": "1"}
    # Nobody listens there: a download is refused at once.
    own |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": "localhost"}
    options = [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--LabApp.expose_app_in_browser=True"]
    command = [sys.executable, "-m", "utils", "lab", "--no-browser", *options, *["--allow-root"] * ROOT_USER]

    def ask(path, method="GET"):
        headers = {"Authorization": f"token {token}"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/{path}", method=method, headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return opener.open(request, timeout=20).read()

    def worked():
        seconds = 0
        for process in psutil.Process(server.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has ended
                seconds += sum(process.cpu_times()[:2])
        return seconds

    with (
        (home / "log.txt").open("w") as log,
        # Not in the group of processes that Ctrl-C ends: it is ended below, with its kernels.
        subprocess.Popen(command, cwd=root, env=own, stdout=log, stderr=log, start_new_session=True) as server,
    ):
        try:
            end = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError):
                    ask("status")
                    break
                assert server.poll() is None and time.monotonic() < end, (home / "log.txt").read_text()
                time.sleep(0.1)
            notices.append(("-", "browser", f"{browser.browser.version}, screenshots: {pictures}"))
            # A workspace for each notebook, or JupyterLab would open those of the tests before it too.
            place = f"http://127.0.0.1:{port}/lab/workspaces/{{0}}/tree/notebooks/{{0}}.ipynb?token={token}"
            folder = root / "notebooks"
            yield SimpleNamespace(folder=folder, address=place.format, pictures=pictures, ask=ask, worked=worked)
        finally:
            try:
                ask("shutdown", "POST")
            except OSError:  # it is not up yet, or hangs
                server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


class Patience:
    """Lasts while the kernel computes, however slowly; ends `seconds` after it has stopped, or at LONGEST."""

    LONGEST = 600

    def __init__(self, lab, seconds):
        self.lab, self.seconds = lab, seconds
        self.start = self.worked = lab.worked()
        self.since = time.monotonic()

    def lasts(self):
        worked = self.lab.worked()
        if abs(worked - self.worked) > 0.1:  # waiting takes some, too
            self.worked, self.since = worked, time.monotonic()
        return time.monotonic() - self.since < self.seconds and worked - self.start < self.LONGEST


def check(browser, lab, name, patience=60):
    """Run notebook `name`, try its widgets, save it. Raises AssertionError: what is wrong.

    `patience` is for how many seconds the kernel may do nothing where something is waited for.
    """
    path = lab.folder / f"{name}.ipynb"
    stored = path.read_bytes()
    with opened(browser, lab, name) as page:
        choose(page, "Edit", "Clear Outputs of All Cells")  # so that the counts are those of this run
        run_all(page)
        try_widgets(page, lab, finished(page, lab, patience), patience, lab.pictures / name)
        save(page)
    need(path.read_bytes() == stored, f"{name}: was only read and run, and is not as it was stored")


@contextlib.contextmanager
def opened(browser, lab, *names):
    """The page of a notebook, or those of several at once; then, a picture where it failed, and no kernel left."""
    pages = [browser.new_page() for _ in names]
    try:
        for page, name in zip(pages, names):
            page.goto(lab.address(name))
        for page in pages:
            page.wait_for_function(READY)
            need(not page.locator(MESSAGES).count(), "".join(page.locator(MESSAGES).all_inner_texts()))
        yield pages[0] if len(names) == 1 else pages
    except Exception:
        for page, name in zip(pages, names):
            page.screenshot(path=lab.pictures / f"{name}-failed.png")
        raise
    finally:
        for page in pages:
            page.close()
        for kernel in json.loads(lab.ask("kernels")):  # also one that is still busy
            lab.ask(f"kernels/{kernel['id']}", "DELETE")


def choose(page, menu, item):
    page.get_by_role("menuitem", name=menu, exact=True).click()
    page.get_by_role("menuitem", name=item).click()


def run_all(page):
    choose(page, "Kernel", "Restart Kernel and Run All Cells…")
    dialog = page.locator(".jp-Dialog")
    dialog.locator(".jp-mod-accept").click()
    dialog.wait_for(state="detached")


def save(page):
    """By its button: a text box that has the focus keeps Ctrl+S to itself, and JupyterLab saves two minutes later."""
    page.locator("[data-jp-item-name=save]").click()
    page.wait_for_function("!jupyterapp.shell.currentWidget.context.model.dirty")


def finished(page, lab, patience):
    """Waits until all cells are done; returns the titles of the cells with widgets, one for each widget."""
    dialog, first = page.locator(".jp-Dialog"), None
    while True:
        cells = page.evaluate(CELLS)
        for cell in cells:
            need(not cell["error"], f"{cell['title']}\n{cell['error']}")
        waiting = [cell["title"] for cell in cells if not cell["count"]]
        if not waiting:
            break
        if len(waiting) != first:
            first, patient = len(waiting), Patience(lab, patience)
        need(not dialog.count(), "".join(dialog.all_inner_texts()))  # the kernel died
        need(patient.lasts(), f"{waiting[0]}: not done, nor {len(waiting) - 1} more cells")
        page.wait_for_timeout(250)
    counts = [cell["count"] for cell in cells]
    need(counts == list(range(1, len(cells) + 1)), f"the cells are counted {counts}, not 1, 2, 3, …")
    return [cell["title"] for cell in cells for _ in range(cell["widgets"])]


def try_widgets(page, lab, titles, patience, picture):
    """Move every slider and fill every text box; their widget must then show something else, and no error."""
    views = page.locator(VIEWS)
    patient = Patience(lab, patience)
    while (drawn := views.count() - page.locator(VIEWS + NOT_DRAWN).count()) != len(titles):
        need(patient.lasts(), f"{drawn} of these widgets are on the page: {titles}")
        page.wait_for_timeout(250)
    show_all(page, f"{picture}.png")
    page.evaluate(WATCH)
    for number, (view, name) in enumerate(zip(views.all(), titles), 1):
        need(not view.locator(OTHERS).count(), f"{name}: has a control that this test cannot work")
        for controls, *uses in ((view.locator(SLIDERS), step, drag), (view.locator(BOXES), fill)):
            for count, control in enumerate(controls.all(), 1):
                shown = settled(page, lab, view, [], patience, f"{name}: shows nothing")
                view.screenshot(path=f"{picture}-{number}-{count}.png")
                for use in uses:
                    tried = f"{use.__name__}-{count}"
                    use(page, control)
                    shown = settled(page, lab, view, shown, patience, f"{name}: shows the same after {tried}")
                    view.screenshot(path=f"{picture}-{number}-{tried}.png")


def show_all(page, picture):
    """A picture of the whole notebook: it scrolls inside the window, so the window is made as high for a moment."""
    size = page.viewport_size
    height = page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollHeight")
    page.set_viewport_size(size | {"height": min(height, 16000)})  # more than that Chromium does not draw
    page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTop = 0")
    page.screenshot(path=picture)
    page.set_viewport_size(size)


def step(page, slider):
    """By keyboard, one step to the right; from the right end, to the left."""
    place = slider.locator("..")
    before = place.get_attribute("style")
    slider.press("ArrowRight")
    if place.get_attribute("style") == before:
        slider.press("ArrowLeft")


def drag(page, slider):
    """By mouse, nearly to the end that is farther away."""
    slider.scroll_into_view_if_needed()
    handle, track = (part.bounding_box() for part in (slider, slider.locator("../..")))
    x, y = (handle[start] + handle[size] / 2 for start, size in (("x", "width"), ("y", "height")))
    part = 0.9 if x < track["x"] + track["width"] / 2 else 0.1
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(track["x"] + part * track["width"], y)
    page.mouse.up()


def fill(page, box):
    box.select_text()
    box.press_sequentially("vegetarian lasagne")
    box.press("Enter")


def settled(page, lab, view, before, patience, complaint):
    """What a widget shows, as a list of HTML, once that is no longer `before` and the kernel has done its work."""
    outputs, failures = view.locator(".widget-output .jp-OutputArea-output"), view.locator(FAILED)
    patient, last = Patience(lab, patience), None
    while True:
        need(not failures.count(), complaint + "\n" + "".join(failures.all_inner_texts()))
        shown = outputs.evaluate_all("outputs => outputs.map(output => output.innerHTML)")
        if shown == last != before and page.evaluate("busy.size") == 0:
            return shown
        need(patient.lasts(), complaint)
        last = shown
        page.wait_for_timeout(100)


def need(holds, complaint):
    """An assert whose message is the complaint alone."""
    __tracebackhide__ = True
    if not holds:
        raise AssertionError(complaint)


@pytest.mark.parametrize("name", [path.stem for path in notebooks.notebook_paths()])
def test_notebook(browser, lab, name):
    check(browser, lab, name)


# What an untrusted page shows of each code cell: the outputs that can be seen, as text and as pictures; its height.
AS_IT_OPENS = """() => [...jupyterapp.shell.currentWidget.content.widgets].map(({model, node}) => {
    const seen = part => part.offsetParent !== null;
    const outputs = [...node.querySelectorAll(".jp-OutputArea-output")].filter(seen);
    const box = node.getBoundingClientRect();
    return {
        id: model.id,
        code: [...node.querySelectorAll(".jp-InputArea-editor")].some(seen),
        hidden: [...node.querySelectorAll(".jp-OutputPlaceholder")].some(seen),
        quoted: [...node.querySelectorAll(".jp-OutputPlaceholder .jp-PlaceholderText")].some(seen),
        pictures: outputs.flatMap(part => [...part.querySelectorAll("img")])
            .filter(image => image.complete && image.naturalWidth).length,
        wide: outputs.some(part => part.scrollWidth > part.clientWidth + 1),
        text: outputs.filter(part => !part.querySelector("img")).map(part => part.innerText).join("\\n"),
        top: box.top, bottom: box.bottom,
    };
})"""


@pytest.mark.parametrize("name", [path.stem for path in notebooks.notebook_paths()])
def test_as_it_opens(browser, lab, name):
    """Not trusted and not run: each stored output is there, and as it is stored; solutions and answers are folded."""
    book = nbformat.read(lab.folder / f"{name}.ipynb", as_version=4)
    with opened(browser, lab, name) as page:
        page.wait_for_function("[...document.images].every(image => image.complete)")
        shown = {cell["id"]: cell for cell in page.evaluate(AS_IT_OPENS)}
        page.screenshot(path=lab.pictures / f"{name}-first-screen.png")
        show_all(page, lab.pictures / f"{name}-as-it-opens.png")
    problems = [problem for cell in book.cells for problem in wrong(cell, shown[cell.id])]
    assert problems == []
    first = [cell for cell in book.cells if shown[cell.id]["top"] < 1000]
    assert first[0].source.startswith("# ") and any("## 1" in cell.source for cell in first), (
        "no idea on the first screen"
    )


def wrong(cell, shown):
    """What is wrong with a cell as a page that is not trusted shows it: yields one str for each fault."""
    if cell.cell_type != "code":
        return
    title = f"In[{cell.execution_count}] {cell.source.partition(chr(10))[0]:.50}"
    metadata = cell.metadata.get("jupyter", {})
    if shown["code"] == bool(metadata.get("source_hidden")):
        yield f"{title}: code that should be folded is open, or the other way round"
    if metadata.get("outputs_hidden"):
        # Where the code is folded, too, its line stands for both; where it is not, a line of dots for the output.
        seen = shown["pictures"] or shown["text"] or shown["quoted"]
        if seen or not (shown["hidden"] or metadata.get("source_hidden")):
            yield f"{title}: its output can be seen before it is asked for"
        return
    pictures = sum("image/png" in output.get("data", {}) for output in cell.outputs)
    if shown["pictures"] != pictures:
        yield f"{title}: {shown['pictures']} of {pictures} figures are shown"
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    texts = [text for text, output in zip(texts, cell.outputs) if "image/png" not in output.get("data", {})]
    failed = any(output.output_type == "error" for output in cell.outputs)
    if not failed and "".join(shown["text"].split()) != "".join("".join(texts).split()):
        yield f"{title}: what is shown is not what is stored: {shown['text'][:200]}"
    if shown["wide"]:
        yield f"{title}: what it prints is wider than the page"


# A sound figure, whose slider starts at its right end; and faults: what is replaced, by what, the complaint.
FIGURE = f"""\
# A figure
import sys
import ipywidgets
import matplotlib.pyplot as plt
assert sys.prefix == {sys.prefix!r}
def draw(x, word):
    plt.plot([0, x])
    plt.title(word)
    plt.show()
ipywidgets.interact(draw, x=ipywidgets.IntSlider(5, 0, 5), word="pizza");
"""
FAULTS = {
    "cell_that_fails": ("import sys", "import absent", "^# A figure\nModuleNotFoundError: No module named 'absent'"),
    "slider_for_nothing": ("[0, x]", "[0, 1]", "^# A figure: shows the same after step-1$"),
    "slider_that_fails": ("plt.show()", "assert x == 5", "^# A figure: .* after step-1\n(.*\n)*AssertionError"),
}


def write(lab, name, figure):
    fails = new_code_cell("1 / 0", metadata={"tags": ["raises-exception"]})
    notebooks.write(
        notebooks.normalised(new_notebook(cells=[fails, new_code_cell(figure)])), lab.folder / f"{name}.ipynb"
    )


def test_a_sound_notebook_passes(browser, lab):
    write(lab, "sound", FIGURE)
    check(browser, lab, "sound")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(browser, lab, name):
    old, new, complaint = FAULTS[name]
    assert old in FIGURE
    write(lab, name, FIGURE.replace(old, new))
    with pytest.raises(AssertionError, match=complaint):
        check(browser, lab, name, patience=4)


def test_a_kernel_that_does_nothing_more_is_found_and_one_that_computes_is_waited_for(browser, lab):
    write(lab, "sleeps", "import time\ntime.sleep(1000)")
    with pytest.raises(AssertionError, match="import time: not done, nor 0 more cells"):
        check(browser, lab, "sleeps", patience=2)
    write(lab, "computes", "import time\nwhile time.process_time() < 12:\n    pass")
    check(browser, lab, "computes", patience=8)


def test_two_notebooks_at_once_and_a_reload_in_the_middle(browser, lab):
    slow = "import time\nfor _ in range(40):\n    time.sleep(0.1)\n" + FIGURE
    for name in "one", "two":
        write(lab, name, slow)
    with opened(browser, lab, "one", "two") as (one, two):
        for page in one, two:
            run_all(page)
        one.reload()
        one.wait_for_function(READY)
        assert not one.locator(MESSAGES).count()
        run_all(one)
        for page, name in (two, "two"), (one, "one"):
            try_widgets(page, lab, finished(page, lab, 10), 10, lab.pictures / name)


def test_what_was_edited_is_saved_and_git_brings_the_stored_one_back(browser, lab):
    """README's way back. Skipped without git, which a downloaded ZIP does not need."""
    if not shutil.which("git"):
        pytest.skip("no git here")
    write(lab, "edited", "print(1)")
    stored = (lab.folder / "edited.ipynb").read_bytes()

    def git(*words):
        who = ["-c", "user.name=reader", "-c", "user.email=reader@example.org"]
        return subprocess.run(["git", *who, *words], cwd=lab.folder.parent, check=True, capture_output=True).stdout

    git("init", "--quiet")
    git("add", "notebooks")
    git("commit", "--quiet", "--message", "as stored")
    with opened(browser, lab, "edited") as page:
        page.get_by_text("print(1)").click()
        page.keyboard.press("Control+End")
        page.keyboard.type(" + 1")
        page.keyboard.press("Shift+Enter")
        save(page)
    assert git("status", "--porcelain", "--untracked-files=no") == b" M notebooks/edited.ipynb\n"
    git("restore", "notebooks")
    assert (lab.folder / "edited.ipynb").read_bytes() == stored
