"""The bench does what it says; how long that takes is nobody's test."""

import json

import pytest

from utils import bench, datasets, training


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    toy = datasets.load("toy")
    monkeypatch.setattr(datasets, "load", lambda name: toy)
    monkeypatch.setattr(training, "CACHE", tmp_path)
    monkeypatch.setattr(bench, "SIZES", ((2, 5, 8, 2),))
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "COUNT", 500)
    preset = training.PRESETS["toy"]
    short = preset | {"fit": preset["fit"] | {"epochs": 1}}
    monkeypatch.setattr(training, "PRESETS", {"quick": short, "default": short, "lecture": short, "toy": preset})
    monkeypatch.setattr(bench, "GOALS", (0.3, 1.0))


def test_the_whole_bench_and_its_file(tmp_path, capsys):
    assert bench.main(["--json", str(tmp_path / "bench.json")]) == 0
    kept = json.loads((tmp_path / "bench.json").read_text())
    assert [row["what"] for row in kept["layers"]] == ["attention 2×5×8", "encoder layer 2×5×8"]
    assert [row["what"] for row in kept["pipeline"]] == ["500 reviews, raw", "500 reviews, cached"]
    assert not list(tmp_path.glob("tokens-bench*"))
    for row in kept["race"]:
        assert 0 < row["30%"] <= row["seconds"] and row["100%"] is None and 0.3 < row["best"] < 1
        assert 0 < row["outside"] < 1 and row["steps"] == 50
    assert "100%   never" in capsys.readouterr().out


def test_the_race_passes_one_goal_after_the_other_and_ends_at_the_last(monkeypatch):
    monkeypatch.setattr(bench, "GOALS", (0.3, 0.7))
    row = bench.race("toy")
    assert (
        0 < row["30%"] < row["70%"] <= row["seconds"] and row["steps"] % 64 == 0 and row["best"] > 0.7
    )  # looked at, and stopped


def test_without_imdb_the_layers_are_still_measured(monkeypatch, capsys):
    def missing(name):
        raise datasets.ImdbUnavailable("no reviews here")

    monkeypatch.setattr(datasets, "load", missing)
    assert bench.main([]) == 0
    said = capsys.readouterr().out
    assert "encoder layer" in said and said.endswith("no reviews here\n")
