"""The pictures that more than one notebook draws, and the colours they share.

Colours are Okabe and Ito's, told apart by colour-blind readers too; each means one thing in every figure.
"""

import matplotlib.pyplot as plt

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
