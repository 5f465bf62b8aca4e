"""Runs in a notebook's kernel, in place of `interact`: draws the figure at up to 25 places of the first slider."""

import ipywidgets
from IPython.display import display


def places(widget):
    if hasattr(widget, "options"):
        return list(widget.options)
    if not hasattr(widget, "step"):
        return []  # a text box
    found = [widget.min + widget.step * i for i in range(round((widget.max - widget.min) / widget.step) + 1)]
    return [widget.base**power for power in found] if hasattr(widget, "base") else found


def every_frame(draw, **widgets):
    widgets = ipywidgets.interactive(draw, **widgets).kwargs_widgets
    slider = next(widget for widget in widgets if places(widget))
    values = places(slider)
    start, step = min(range(len(values)), key=lambda i: abs(values[i] - slider.value)), -(-len(values) // 25)
    values = values[start % step :: step]
    found = {
        "name": slider.description,
        "values": [f"{value:.3g}" if isinstance(value, float) else f"{value:,}" for value in values],
        "start": start // step,
        "others": [widget.description for widget in widgets if widget is not slider],
    }
    display({"application/json": found}, raw=True)
    for value in values:
        draw(**{widget._kwarg: widget.value for widget in widgets} | {slider._kwarg: value})


ipywidgets.interact = every_frame
