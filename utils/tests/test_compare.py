"""The comparison: each variant changes what it says, results are appended and never measured twice."""

import pytest

from utils import datasets, presets, tasks, training
from utils.cli import arguments, compare, train
from utils.files import read_table, write_table
from utils.tests.conftest import command

TOY = presets.PRESETS["toy"]


@pytest.mark.parametrize("name", compare.VARIANTS)
def test_a_variant_differs_from_its_preset_where_it_says_and_nowhere_else(name):
    base, changes = compare.VARIANTS[name]
    preset = presets.PRESETS[base]
    variant = compare.changed(preset, changes)
    for part, value in preset.items():
        if part not in changes:
            assert variant[part] == value
            continue
        if not isinstance(value, dict):
            assert variant[part] == changes[part] != value
            continue
        for entry in value.keys() | variant[part].keys():
            if entry in changes[part]:
                assert variant[part][entry] == changes[part][entry] != value.get(entry)
            else:
                assert variant[part][entry] == value[entry]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """One preset and one variant of it, on the toy reviews, for one epoch."""
    toy = datasets.load("toy")
    monkeypatch.setattr(datasets, "load", lambda name: toy)
    monkeypatch.setattr(tasks, "CACHE", tmp_path)
    monkeypatch.setattr(train, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(train, "RESULTS", tmp_path / "results.tsv")
    monkeypatch.setattr(compare, "ABLATION", tmp_path / "ablation.tsv")
    monkeypatch.setattr(compare, "VARIANTS", {"no positions": ("encoder", {"model": {"positions": False}})})
    monkeypatch.setattr(arguments, "VARIANTS", compare.VARIANTS)
    monkeypatch.setitem(presets.PRESETS, "encoder", TOY | {"fit": TOY["fit"] | {"epochs": 1}})
    return tmp_path


def test_what_is_missing_is_measured_once(small):
    line = ["encoder", "no positions", "--seed", "0", "1"]
    assert command("compare", line) == 0
    tables = [small / "results.tsv", small / "ablation.tsv"]
    rows = [(row["reviews"], row["seed"], bool(row["test"])) for row in read_table(tables[0])]
    assert rows == [("1600", "0", True), ("1600", "1", True), ("2000", "0", True), ("2000", "1", True)]
    variants = read_table(tables[1])
    assert [(row["variant"], row["preset"], row["seed"]) for row in variants] == [
        ("no positions", "encoder", "0"),
        ("no positions", "encoder", "1"),
    ]
    assert "test" not in variants[0] and variants[0]["scrambled"] == variants[0]["film"]
    written = [path.read_bytes() for path in tables]
    assert command("compare", line) == 0 and [path.read_bytes() for path in tables] == written
    tables[1].unlink()
    assert command("compare", line) == 0 and len(read_table(tables[1])) == 2  # only what is lacking


@pytest.mark.parametrize(("there", "lacks_held_out"), [("2000", True), ("1600", False)])
def test_of_two_trainings_the_one_that_is_lacking_is_named(small, there, lacks_held_out):
    write_table(train.RESULTS, [{"preset": "encoder", "reviews": there, "seed": "0"}])
    assert list(compare.missing(["encoder"], [0])) == [("encoder", 0, lacks_held_out)]
    assert list(compare.missing(["encoder"], [1])) == [("encoder", 1, True), ("encoder", 1, False)]


def test_a_variant_is_trained_with_its_changes(small, monkeypatch):
    begun = []
    monkeypatch.setattr(train, "train_preset", lambda preset, seed, keep: begun.append((preset, seed)) or (None, None))
    assert command("compare", ["no positions", "--seed", "3"]) == 130
    [(preset, seed)] = begun
    assert preset["model"] == TOY["model"] | {"positions": False} and seed == 3


def test_interrupted_it_keeps_what_was_measured(small, monkeypatch):
    assert command("compare", ["no positions", "--seed", "0"]) == 0
    before = (small / "ablation.tsv").read_bytes()
    monkeypatch.setattr(training, "fit", lambda *args, **options: [])
    assert command("compare", ["no positions", "--seed", "0", "1"]) == 130
    assert (small / "ablation.tsv").read_bytes() == before


def test_an_unknown_name_says_so(capsys):
    with pytest.raises(SystemExit):
        command("compare", ["encodre"])
    assert "'encoder'" in capsys.readouterr().err
