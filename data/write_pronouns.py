"""The small grammar behind `pronouns.tsv`: sentences in which one adjective decides what "it" means.

`python3 -m data.write_pronouns` writes it again, byte for byte.

After T. Winograd's schemas (Understanding Natural Language, 1972): "the trophy does not fit in the suitcase because it
is too big" speaks of the trophy, "because it is too small" of the suitcase. Sentences come in pairs that differ in this
one adjective, and in what "it" means, the first noun or the second. Most adjectives point to either noun, depending on
the frame: "does not fit because it is too big" to the first, "fits because it is so big" to the second.
"""

import random

from utils.datasets import DATA
from utils.files import write_table

NOUNS = {
    "thing": "trophy vase ball book cake pizza violin clock",
    "container": "suitcase box bag basket drawer chest",
    "cloth": "carpet blanket sheet towel curtain flag",
    "surface": "table bed sofa window door bench",
    "vehicle": "lorry bus car tractor van taxi train",
    "gate": "bridge arch gate roof branch",
    "line": "ladder rope hose chain cable",
    "place": "window roof balcony branch ceiling shelf",
    "animal": "animal cat dog horse donkey fox bear goose",
    "way": "street road river field valley bridge",
}
# First noun, what it does, second noun, verb; adjectives that make "it" the first noun, and the second.
FRAMES = """
    thing     | does not fit in     | container | is too  | big large    | small tiny
    thing     | fits in             | container | is so   | small tiny   | big large
    container | does not hold       | thing     | is too  | small tiny   | big large
    container | holds               | thing     | is so   | big large    | small tiny
    cloth     | does not cover      | surface   | is too  | small tiny   | big large
    cloth     | covers              | surface   | is so   | big large    | small tiny
    vehicle   | cannot pass under   | gate      | is too  | high         | low
    vehicle   | can pass under      | gate      | is so   | low          | high
    line      | does not reach      | place     | is too  | short        | high
    line      | reaches             | place     | is so   | long         | low
    animal    | did not catch       | animal    | was too | slow lazy    | fast quick
    animal    | caught              | animal    | was so  | fast quick   | slow lazy
    animal    | did not escape from | animal    | was too | slow lazy    | fast quick
    animal    | escaped from        | animal    | was so  | fast quick   | slow lazy
    vehicle   | did not overtake    | vehicle   | was too | slow         | fast quick
    vehicle   | overtook            | vehicle   | was so  | fast quick   | slow
    animal    | did not cross       | way       | was too | tired weak   | wide busy
    animal    | crossed             | way       | was so  | strong fast  | quiet narrow
    animal    | did not carry       | thing     | was too | small weak   | big heavy
    animal    | carried             | thing     | was so  | big strong   | small light
    line      | did not hold        | thing     | was too | thin weak    | big heavy
    thing     | broke               | surface   | was so  | big heavy    | thin weak
"""
OPENINGS = ("", "today", "they say", "of course")
LECTURE = {frozenset(("trophy", "suitcase")), frozenset(("animal", "street"))}
PAIRS = {"train": 1200, "test": 264}  # pairs of sentences
HELD_OUT = 0.2  # the share of pairs of nouns that only "test" has


def read_frames(text):
    """The lines of a table of frames, as lists of cells."""
    return [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.strip()]


def held_out(frames, rng):
    """A share of all pairs of nouns that some frame allows, and the lecture's own: a set of frozensets."""
    couples = {
        frozenset((one, other))
        for first, _, second, *_ in frames
        for one in NOUNS[first].split()
        for other in NOUNS[second].split()
        if one != other
    }
    in_order = sorted(couples, key=sorted)  # a set has no order of its own that every machine shares
    return set(rng.sample(in_order, round(HELD_OUT * len(in_order)))) | LECTURE


def draw(frame, rng):
    """Two sentences of a frame that differ in the adjective alone, as [(sentence, noun meant), …], and their nouns."""
    first, does, second, verb, for_first, for_second = frame
    one = rng.choice(NOUNS[first].split())
    other = rng.choice([noun for noun in NOUNS[second].split() if noun != one])
    beginning = f"{rng.choice(OPENINGS)} the {one} {does} the {other} because it {verb}".strip()
    ends = rng.choice(for_first.split()), rng.choice(for_second.split())
    return [(f"{beginning} {end}", noun) for end, noun in zip(ends, (one, other))], (one, other)


def pronouns(seed=9):
    """The set as rows of the table, the two sentences of a pair one after the other; no sentence occurs twice.

    The nouns of a test sentence never stand together in a training sentence, in whatever frame and order. Frames take
    turns.
    """
    rng = random.Random(seed)
    frames = read_frames(FRAMES)
    apart, seen, rows = held_out(frames, rng), set(), []
    for split, wanted in PAIRS.items():
        for number in range(wanted):
            frame = number % len(frames)
            for _ in range(10_000):
                sentences, (one, other) = draw(frames[frame], rng)
                if (frozenset((one, other)) in apart) == (split == "test") and seen.isdisjoint(sentences):
                    break
            else:
                raise ValueError(f"{split} has used up frame {frame + 1}: add words, or lower PAIRS")
            seen.update(sentences)
            rows += [
                {"split": split, "frame": frame + 1, "first": one, "second": other, "meant": noun, "sentence": sentence}
                for sentence, noun in sentences
            ]
    return rows


if __name__ == "__main__":
    write_table(DATA / "pronouns.tsv", pronouns())
