"""The pictures that more than one notebook draws, and their colours.

The colours are Okabe and Ito's, which colour-blind readers can tell apart; each has one meaning in every figure.
"""

import matplotlib.pyplot as plt
from IPython import get_ipython
from matplotlib.colors import LinearSegmentedColormap

QUERIES, KEYS, VALUES, WEIGHTS = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
TRAINING, FILM, RANDOM, TEST = "#999999", "#D55E00", "#56B4E9", "#000000"  # what an accuracy was measured on


def use_style():
    """Give every figure after this call the look of the series, and in a notebook two pixels per point."""
    if shell := get_ipython():
        shell.run_line_magic("matplotlib", "inline")
        shell.run_line_magic("config", "InlineBackend.figure_format = 'retina'")
    plt.rcParams.update(
        {
            "figure.figsize": (7, 3.2),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.alpha": 0.25,
            "legend.frameon": False,
        }
    )


def draw_matrices(*parts, columns=()):
    """Draw a formula of matrices, true to their shapes. Each part is text, such as "=", or (matrix, name, colour).

    A matrix is a tensor of one dimension (drawn as a column) or two. The larger the absolute value of an entry is
    relative to the largest in its matrix (or to 1, if that is larger), the deeper its colour. `columns` names the
    columns of every matrix that has that many.
    """
    shown = [part if isinstance(part, str) else (_as_grid(part[0]), *part[1:]) for part in parts]
    tallest = max(part[0].shape[0] for part in shown if not isinstance(part, str))
    figure, axis = plt.subplots()
    x = 0.0
    for part in shown:
        if isinstance(part, str):
            axis.text(x + 0.05, 0, part, ha="center", va="center", fontsize=18)
            x += 0.7
            continue
        grid, name, color = part
        rows, width = grid.shape
        depth = grid.abs() / grid.abs().max().clamp(min=1)
        for i in range(rows):
            for j in range(width):
                box = (x + j, rows / 2 - i - 1)
                strength = 0.75 * depth[i, j].item()
                axis.add_patch(plt.Rectangle(box, 1, 1, fc=(color, strength), ec="#555555", lw=0.8))
                axis.text(box[0] + 0.5, box[1] + 0.5, _short(grid[i, j].item()), ha="center", va="center", fontsize=9)
        axis.text(x + width / 2, rows / 2 + 0.2, name, ha="center", va="bottom", fontsize=11)
        for j, label in enumerate(columns if len(columns) == width else ()):
            axis.text(x + j + 0.6, -rows / 2 - 0.15, label, ha="right", va="top", fontsize=8, rotation=40)
        x += width + 0.6
    axis.set(xlim=(-0.3, x - 0.3), ylim=(-tallest / 2 - 0.2, tallest / 2 + 0.9), aspect="equal")
    axis.axis("off")
    figure.set_size_inches(0.55 * x, 0.55 * (tallest + 1.2))


def _as_grid(matrix):
    return matrix.detach()[:, None] if matrix.dim() == 1 else matrix.detach()


def _short(number):
    if 0 < abs(number) < 0.005:
        return "≈0"
    return f"{number:.2f}".rstrip("0").rstrip(".").replace("-", "−")


def attention_map(weights, queries, keys, title=""):
    """Draw `weights` (T_q, T_k) on the current axes, with one row per query and one column per key.

    `queries` and `keys` are the names of rows and columns. White is 0, the full colour is 1.
    """
    axis = plt.gca()
    colors = LinearSegmentedColormap.from_list("weights", ["white", WEIGHTS])
    axis.pcolormesh(weights.detach(), cmap=colors, vmin=0, vmax=1, edgecolors="#dddddd", linewidth=0.5)
    axis.set_xticks([j + 0.5 for j in range(len(keys))], keys, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks([i + 0.5 for i in range(len(queries))], queries)
    for label in (*axis.get_xticklabels(), *axis.get_yticklabels()):
        label.set_parse_math(False)  # whatever a reader types is text, a $ too
    axis.invert_yaxis()
    axis.set_xlabel("keys", color=KEYS, weight="bold")
    axis.set_ylabel("queries", color=QUERIES, weight="bold")
    axis.set_title(title)
    axis.tick_params(length=0)
    axis.grid(False)


def draw_layer(axis, names, residuals, title):
    """Draw the parts of a layer in a row, `names` from the input to the output, with numbered arrows between them.

    residuals: (start, end) for each residual path, from the arrow that leaves part `start` to part `end`.
    Part i is at x = 1.4 i, y = 0.
    """
    arrow, numbers, last = {"arrowstyle": "->"}, "①②③④⑤⑥⑦⑧⑨", len(names) - 1
    for i, name in enumerate(names):
        x = 1.4 * i
        fill = WEIGHTS if name.endswith("attention") else "#dddddd" if name.startswith("MLP") else "white"
        if 0 < i < last:
            axis.add_patch(plt.Rectangle((x - 0.45, -0.4), 0.9, 0.8, fc=fill, ec="black"))
            axis.text(x - 0.7, 0.1, numbers[i - 1], ha="center")
        axis.text(x + 0.3 * ((i == 0) - (i == last)), 0, name, ha="center", va="center", size=9)
        if i:
            axis.annotate("", (x - 0.45, 0), (x - 0.95, 0), arrowprops=arrow)
    for start, end in residuals:
        left, right = 1.4 * start + 0.6, 1.4 * end
        axis.plot([left, left, right], [0, 0.9, 0.9], color="black", linewidth=1)
        axis.annotate("", (right, 0.4), (right, 0.93), arrowprops=arrow)
        axis.text(right + 0.1, 0.55, numbers[end - 1])
    axis.set(xlim=(-0.5, 1.4 * last + 0.5), ylim=(-0.5, 1.1), aspect="equal")
    axis.set_title(title, loc="left")
    axis.axis("off")


# The boxes of the map: the notebook that teaches it, x and y of its centre, width, text, colour.
MAP = (
    (5, 1.5, 0.4, 2.4, "words + positions", None),
    (5, 1.5, 2.2, 2.2, "self-attention", WEIGHTS),
    (5, 1.5, 3.2, 2.2, "add & norm", None),
    (5, 1.5, 4.2, 2.2, "MLP", "#bbbbbb"),
    (5, 1.5, 5.2, 2.2, "add & norm", None),
    (7, 1.5, 7.4, 2.4, "pool → liked?", None),
    (6, 5.4, 0.4, 3.0, "words so far + positions", None),
    (6, 5.4, 1.6, 2.6, "self-attention, masked", WEIGHTS),
    (6, 5.4, 2.4, 2.6, "add & norm", None),
    (6, 5.4, 3.2, 2.6, "cross-attention", WEIGHTS),
    (6, 5.4, 4.0, 2.6, "add & norm", None),
    (6, 5.4, 4.8, 2.6, "MLP", "#bbbbbb"),
    (6, 5.4, 5.6, 2.6, "add & norm", None),
    (6, 5.4, 7.4, 2.6, "→ the next word", None),
    (3, 9.0, 1.3, 1.2, "$W_q$", QUERIES),
    (3, 10.8, 1.3, 1.2, "$W_k$", KEYS),
    (3, 12.6, 1.3, 1.2, "$W_v$", VALUES),
    (2, 9.0, 2.4, 1.2, "queries", QUERIES),
    (2, 10.8, 2.4, 1.2, "keys", KEYS),
    (2, 12.6, 2.4, 1.2, "values", VALUES),
    (1, 9.9, 3.5, 2.6, "scores: who matches?", None),
    (1, 9.9, 4.6, 2.6, "softargmax → weights", WEIGHTS),
    (1, 10.8, 5.7, 4.8, "mix: each value times its weight", WEIGHTS),
    (4, 10.8, 6.8, 4.8, "heads: H such mixes side by side", None),
    (4, 10.8, 7.9, 1.2, "$W_h$", None),
)
MAP_ARROWS = (  # through points x, y, x, y, …
    *((1.5, low, 1.5, high) for low, high in ((0.7, 1.9), (2.5, 2.9), (3.5, 3.9), (4.5, 4.9), (5.5, 7.1))),
    *((5.4, y + 0.28, 5.4, y + 0.54) for y in (1.6, 2.4, 3.2, 4.0, 4.8)),
    *((x, 1.6, x, 2.1) for x in (9.0, 10.8, 12.6)),
    *((5.4, 0.7, 5.4, 1.3), (5.4, 5.9, 5.4, 7.1), (1.5, 6.4, 3.6, 6.4, 3.6, 3.2, 4.1, 3.2)),
    *((9.0, 2.7, 9.6, 3.2), (10.8, 2.7, 10.2, 3.2), (9.9, 3.8, 9.9, 4.3), (9.9, 4.9, 9.9, 5.4)),
    *((12.6, 2.7, 12.6, 5.4), (10.8, 6.0, 10.8, 6.5), (10.8, 7.1, 10.8, 7.6)),
)


def transformer_map(notebook):
    """Draw the map of the Transformer: what `notebook` (a number) teaches is bold, and what comes later is pale."""
    figure, axis = plt.subplots(figsize=(9, 5.4))
    for x, y, width, height, name, color in (
        (0.2, 1.75, 2.75, 3.9, "encoder, N layers", "#999999"),
        (3.95, 1.15, 3.1, 4.9, "decoder, N layers", "#999999"),
        (8.15, 0.8, 5.55, 7.6, "any attention, opened", WEIGHTS),
    ):
        axis.add_patch(plt.Rectangle((x, y), width, height, fc="none", ec=color, ls="--"))
        axis.text(x + width + 0.1, y + height / 2, name, va="center", rotation=90, size=8, color="#555555")
    for points in MAP_ARROWS:
        axis.plot(points[:-2:2], points[1:-2:2], color="#777777", lw=1)
        axis.annotate("", points[-2:], points[-4:-2], arrowprops={"arrowstyle": "->", "color": "#777777"})
    for teaches, x, y, width, text, color in MAP:
        later, lit = teaches > notebook, teaches == notebook
        face = (color, 0.5) if color and not later else "white"
        edge, ink = ("#cccccc", "#aaaaaa") if later else ("black", "black")
        axis.add_patch(plt.Rectangle((x - width / 2, y - 0.28), width, 0.56, fc=face, ec=edge, lw=2.5 if lit else 1))
        axis.text(x, y, text, ha="center", va="center", size=8, color=ink, weight="bold" if lit else None)
        axis.text(x + width / 2 + 0.05, y - 0.28, f"{teaches:02}", size=6, color=ink)
    axis.set(xlim=(0, 14.2), ylim=(0, 8.8), aspect="equal")
    axis.axis("off")
