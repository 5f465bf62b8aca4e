"""The pictures that more than one notebook draws, and the colours they share.

Colours are Okabe and Ito's, told apart by colour-blind readers too; each means one thing in every figure.
"""

import matplotlib.pyplot as plt
from matplotlib.colors import LinearSegmentedColormap

QUERIES, KEYS, VALUES, WEIGHTS = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
TRAINING, FILM, RANDOM, TEST = "#999999", "#D55E00", "#56B4E9", "#000000"  # on what an accuracy was measured


def use_style():
    """Give every figure after this call the series' look."""
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


def curves(history):
    """Loss and accuracy over the epochs of `training.fit`'s history, side by side: training and both validations."""
    epochs = [row["epoch"] for row in history]
    figure, panels = plt.subplots(1, 2)
    lines = (
        ("train", TRAINING, "training"),
        ("random", RANDOM, "random validation"),
        ("film", FILM, "validation by film"),
    )
    for panel, what in zip(panels, ("loss", "accuracy"), strict=True):
        for name, color, label in lines:
            panel.plot(epochs, [row[f"{name}_{what}"] for row in history], "o-", color=color, label=label)
        panel.set(xlabel="epoch", ylabel=what, xticks=epochs)
    panels[0].legend()
    return figure


def blocks(*parts, columns=()):
    """Draw a formula of matrices, true to their shapes: each part is text, such as "=", or (matrix, name, colour).

    A matrix is a tensor of one dimension (drawn as a column) or two; the larger an entry beside the largest of its
    matrix, or beside 1, the deeper its colour. `columns` names the columns of every matrix with as many of them.
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
    """Draw `weights` (T_q, T_k), a row for each query and a column for each key, on the current axes.

    `queries` and `keys` name the rows and the columns. White is 0, the full colour 1.
    """
    axis = plt.gca()
    colors = LinearSegmentedColormap.from_list("weights", ["white", WEIGHTS])
    axis.pcolormesh(weights.detach(), cmap=colors, vmin=0, vmax=1, edgecolors="#dddddd", linewidth=0.5)
    axis.set_xticks([j + 0.5 for j in range(len(keys))], keys, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks([i + 0.5 for i in range(len(queries))], queries)
    axis.invert_yaxis()
    axis.set_xlabel("keys", color=KEYS, weight="bold")
    axis.set_ylabel("queries", color=QUERIES, weight="bold")
    axis.set_title(title)
    axis.tick_params(length=0)
    axis.grid(False)


def layer(axis, names, ways_around, title):
    """Draw the parts of a layer in a row: `names` from the input to the output, with numbered arrows between them.

    ways_around: (start, end) for each residual connection, from the arrow that leaves part `start` to part `end`.
    Part i stands at x = 1.4 i, y = 0.
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
    for start, end in ways_around:
        left, right = 1.4 * start + 0.6, 1.4 * end
        axis.plot([left, left, right], [0, 0.9, 0.9], color="black", linewidth=1)
        axis.annotate("", (right, 0.4), (right, 0.93), arrowprops=arrow)
        axis.text(right + 0.1, 0.55, numbers[end - 1])
    axis.set(xlim=(-0.5, 1.4 * last + 0.5), ylim=(-0.5, 1.1), aspect="equal")
    axis.set_title(title, loc="left")
    axis.axis("off")
