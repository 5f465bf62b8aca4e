"""The list of mutants fits the code as it is: each line is found once, and what it makes can be run."""

import ast
import json
from collections import Counter

import pytest

from utils.cli import environment
from utils.tests import mutants


def code(book):
    """The code of a notebook, without commands to Jupyter."""
    cells = [cell for cell in json.loads(book)["cells"] if cell["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in cells if "bootstrap" not in cell["metadata"].get("tags", [])]
    return "\n".join(sources)


def test_every_mutant_is_found_once_and_is_other_code():
    sources, seen = {}, set()
    for file, old, new, _ in mutants.mutants():
        source = sources.setdefault(file, (environment.ROOT / "utils" / file).read_text("utf8"))
        try:
            changed = mutants.mutated(source, old, new)
            ast.parse(code(changed) if file.endswith(".ipynb") else changed)
        except (ValueError, SyntaxError) as problem:
            pytest.fail(f"{file}: {old!r} → {new!r}: {problem}")
        assert changed != source and (file, changed) not in seen, (file, old, new)
        seen.add((file, changed))


def test_there_are_mutants_of_all_that_a_student_reads():
    found = Counter(file for file, *_ in mutants.mutants())
    read = [path.name for path in (environment.ROOT / "utils").glob("*.py") if not path.name.startswith("__")]
    assert found.total() >= 120 and all(found[name] >= 5 for name in read), found


def test_what_lives_has_a_reason_and_is_the_exception():
    reasons = [reason for *_, reason in mutants.mutants()]
    assert sum(map(bool, reasons)) <= 0.05 * len(reasons)


def test_a_text_that_is_not_there_or_twice_is_refused():
    for source in ("b", "a a"):
        with pytest.raises(ValueError, match="'a' is found . times, not once: mend its line in mutants.tsv"):
            mutants.mutated(source, "a", "c")
