"""Pictures, held by what is on them: no map upside down, no column under another name, no colour with two meanings."""

from types import SimpleNamespace

import matplotlib
import pytest
import torch
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from utils import plots

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def pixel(figure, axis, x, y):
    """The colour on the canvas at the data coordinates (x, y), and the display coordinates of that place."""
    image = torch.tensor(figure.canvas.buffer_rgba().tolist()) / 255  # rows from the top
    column, row = axis.transData.transform((x, y))
    return image[len(image) - 1 - int(row), int(column), :3], (column, row)


def test_attention_map_has_a_row_for_each_query_top_down_and_a_column_for_each_key():
    weights = torch.tensor([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]])
    figure, axis = plt.subplots()
    plots.attention_map(weights, ["first", "second"], "abc", "a title")
    figure.canvas.draw()
    assert [label.get_text() for label in axis.get_yticklabels()] == ["first", "second"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "b", "c"]
    assert axis.get_title() == "a title"
    full = torch.tensor(colors.to_rgb(plots.WEIGHTS))
    places = {}
    for i, y in enumerate(axis.get_yticks()):
        for j, x in enumerate(axis.get_xticks()):
            color, places[i, j] = pixel(figure, axis, x, y)
            wanted = 1 + weights[i, j] * (full - 1)  # from white to the full colour
            assert torch.allclose(color, wanted, atol=0.02), (i, j)
    assert places[0, 0][1] > places[1, 0][1] and places[0, 0][0] < places[0, 1][0]  # down, and to the right
    assert (axis.yaxis.label.get_text(), axis.yaxis.label.get_color()) == ("queries", plots.QUERIES)
    assert (axis.xaxis.label.get_text(), axis.xaxis.label.get_color()) == ("keys", plots.KEYS)


def test_typed_words_are_text_and_no_formula():
    figure, axis = plt.subplots()
    plots.attention_map(torch.eye(2), ["a$$", "$5million and $10"], [r"$\frac", "b"])
    figure.canvas.draw()  # matplotlib's parser of formulas would raise here
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a$$", "$5million and $10"]


def test_without_a_notebook_the_style_needs_none_and_in_one_figures_have_two_pixels_for_each_point(monkeypatch):
    magics = []
    plots.use_style()
    monkeypatch.setattr(plots, "get_ipython", lambda: SimpleNamespace(run_line_magic=lambda *line: magics.append(line)))
    plots.use_style()
    assert magics == [("matplotlib", "inline"), ("config", "InlineBackend.figure_format = 'retina'")]


def texts(axis):
    return {text.get_text(): text.get_position() for text in axis.texts}


def test_blocks_stand_as_the_matrix_is_written():
    matrix = torch.tensor([[1.0, -2.0], [0.5, 0.001], [4.0, 3.0]])
    plots.draw_matrices(
        (matrix, "X", plots.KEYS), "=", (torch.tensor([0.0, 7.0]), "a", plots.VALUES), columns=["left", "right"]
    )
    axis = plt.gca()
    at = texts(axis)
    cells = [box for box in axis.patches if isinstance(box, Rectangle)]
    assert len(cells) == 6 + 2
    inside = {
        said: box for said, (x, y) in at.items() for box in cells
        if 0 < x - box.get_x() < 1 and 0 < y - box.get_y() < 1
    }  # fmt: skip
    assert inside.keys() == {"1", "−2", "0.5", "≈0", "4", "3", "0", "7"}  # each number in a box of its own
    assert at["1"][1] > at["0.5"][1] > at["4"][1] and at["1"][0] == at["4"][0] < at["−2"][0]  # rows down, columns right
    assert at["0"][1] > at["7"][1] and at["0"][0] == at["7"][0] > at["="][0] > at["−2"][0]  # a vector is a column
    assert at["X"][1] > at["1"][1] and at["left"][0] < at["right"][0] < at["="][0]
    deepest, faint = (inside[said].get_facecolor() for said in ("4", "≈0"))
    assert deepest == colors.to_rgba(plots.KEYS, 0.75) and faint[3] < 0.01
    assert inside["7"].get_facecolor() == colors.to_rgba(plots.VALUES, 0.75)
    assert inside["−2"].get_facecolor()[3] == pytest.approx(0.75 / 2)


def test_a_layer_reads_from_left_to_right_with_its_residual_paths():
    _, axis = plt.subplots()
    plots.draw_layer(axis, ["x", "self-attention", "add", "MLP", "h"], [(0, 2)], "a layer")
    at = texts(axis)
    assert at["x"][0] < at["self-attention"][0] < at["add"][0] < at["MLP"][0] < at["h"][0]
    fills = {box.get_x() + 0.45: box.get_facecolor() for box in axis.patches if isinstance(box, Rectangle)}
    assert fills[at["self-attention"][0]] == colors.to_rgba(plots.WEIGHTS) and len(fills) == 3  # no box for x and h
    [way] = axis.lines
    assert way.get_xdata()[0] < at["self-attention"][0] - 0.45 and way.get_xdata()[-1] == at["add"][0]
    assert axis.get_title(loc="left") == "a layer"


def test_the_map_has_what_is_taught_in_bold_and_what_is_to_come_pale():
    plots.transformer_map(3)
    axis = plt.gca()
    numbers = [text for text in axis.texts if text.get_text().isdigit()]
    boxes = [box for box in axis.patches if isinstance(box, Rectangle) and box.get_height() < 1]
    said = {teaches: [row[4] for row in plots.MAP if row[0] == teaches] for teaches in range(1, 8)}
    assert len(numbers) == len(boxes) == len(plots.MAP) and said[3] == ["$W_q$", "$W_k$", "$W_v$"]
    for text in axis.texts:
        for teaches, names in said.items():
            if text.get_text() in names and names.count(text.get_text()) == 1 and text.get_text() != "add & norm":
                assert (text.get_weight() == "bold") == (teaches == 3)
                assert (text.get_color() == "#aaaaaa") == (teaches > 3) or text.get_text() == "MLP"
    white, blue = colors.to_rgba("white"), colors.to_rgba(plots.QUERIES, 0.5)
    faces = {row[4]: box.get_facecolor() for row, box in zip(plots.MAP, boxes, strict=True)}
    assert faces["cross-attention"] == white and faces["$W_q$"] == faces["queries"] == blue
    for row, box in zip(plots.MAP, boxes):  # no box touches another
        assert not any(
            box.get_window_extent().overlaps(other.get_window_extent()) for other in boxes if other is not box
        )
        assert box.get_linewidth() == (2.5 if row[0] == 3 else 1)


def test_the_scale_of_a_map_is_that_of_weights_not_of_this_picture():
    figure, axis = plt.subplots()
    plots.attention_map(torch.tensor([[0.25, 0.5]]), ["q"], "ab")
    figure.canvas.draw()
    full = torch.tensor(colors.to_rgb(plots.WEIGHTS))
    for j, weight in enumerate((0.25, 0.5)):
        color, _ = pixel(figure, axis, j + 0.5, 0.5)
        assert torch.allclose(color, 1 + weight * (full - 1), atol=0.02)


def test_colours_differ_from_each_other():
    names = ("QUERIES", "KEYS", "VALUES", "WEIGHTS", "TRAINING", "FILM", "RANDOM", "TEST")
    assert len({getattr(plots, name).lower() for name in names}) == len(names)


def test_small_matrices_are_pale_and_only_fitting_ones_have_names_of_columns():
    plots.draw_matrices(
        (torch.tensor([[0.25, -0.5]]), "X", plots.KEYS), (torch.ones(3), "a", plots.VALUES), columns=["l", "r"]
    )
    axis = plt.gca()
    cells = [box for box in axis.patches if isinstance(box, Rectangle)]
    assert [box.get_facecolor()[3] for box in cells[:2]] == pytest.approx([0.75 * 0.25, 0.75 * 0.5])
    assert [text.get_text() for text in axis.texts].count("l") == 1
    short = [plots._short(number) for number in (0, 0.004, -0.004, 0.02, -1.5, 2, 1.234)]
    assert short == ["0", "≈0", "≈0", "0.02", "−1.5", "2", "1.23"]
