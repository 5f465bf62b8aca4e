"""The small grammar behind `english_italian.tsv`: English sentences, each with its one Italian translation.

`python3 -m data.write_english_italian` writes them again, byte for byte, with the words of the tables `italian_*.tsv`.

Words have spaces between them; "l'" and "un'" are words. English to Italian is a function here: there is no "you" (tu,
Lei, voi), no noun has a choice of gender, a pronoun means somebody and never a thing, and no sentence says anything of
"I", "we" or "they" for which Italian would need their gender. What has two correct forms in Italian is left out:
"they like", "my rich uncle", adjectives that may precede the noun. Each rule is a function, with its examples; all
are in the school grammars (such as L. Serianni, Grammatica italiana, 1989). What is drawn, and how often, comes last.
"""

import random
import re
from typing import NamedTuple

from utils.datasets import DATA
from utils.files import read_table, write_table


def read_words(name):
    """A table of words in data/: {first cell: list of the others}."""
    return {first: others for first, *others in (row.values() for row in read_table(DATA / f"italian_{name}.tsv"))}


NOUNS, ADJECTIVES, STATES, VERBS = map(read_words, ("nouns", "adjectives", "states", "verbs"))
# Italian says "the olive pleases the cat". Columns: "he likes"; "one pleases", "many please"; the kinds of noun that
# are liked; the kinds that like.
PLEASING = {
    "like": ["likes", "piace", "piacciono", "person kin animal food thing", "person kin animal"],
    "miss": ["misses", "manca", "mancano", "person kin animal", "person kin animal"],
}
# Like VERBS, but the object is a fixed phrase; a slash separates singular and plural.
IDIOMS = {
    "sleep": ["sleeps", "dormo", "dorme", "dormiamo", "dormono"]
    + ["like a log/like logs", "come un ghiro/come ghiri", "person kin"],
    "eat": ["eats", "mangio", "mangia", "mangiamo", "mangiano"]
    + ["like a horse/like horses", "come un lupo/come lupi", "person kin"],
    "cost": ["costs", "costo", "costa", "costiamo", "costano"]
    + ["an arm and a leg", "un occhio della testa", "food thing"],
}
WEATHER = [
    ("it is raining", "piove"),
    ("it is not raining", "non piove"),
    ("it is raining cats and dogs", "piove a catinelle"),
]
ALL = "person kin animal food thing"
JOINTS = {"and": "e", "but": "ma", "because": "perché"}
BE, ESSERE, AVERE = ("am", "is", "are", "are"), ("sono", "è", "siamo", "sono"), ("ho", "ha", "abbiamo", "hanno")
TO = {"il": "al", "lo": "allo", "la": "alla", "l'": "all'", "i": "ai", "gli": "agli", "le": "alle"}  # a + article


class Phrase(NamedTuple):
    """Who or what a sentence speaks of.

    italian: "il gatto nero", nothing for a pronoun; to: "al gatto nero", "mi"; person: 0 I, 1 he or she, 2 we, 3 they;
    gender: "m", "f", or "" where nobody knows; pairs: its nouns with their adjectives, (("cat", "black"),).
    """

    english: str
    italian: str
    to: str
    person: int
    gender: str
    pairs: tuple = ()


class Sentence(NamedTuple):
    """A sentence in both languages and the pairs of its phrases."""

    english: str
    italian: str
    pairs: tuple = ()


PRONOUNS = [Phrase("I", "", "mi", 0, ""), Phrase("he", "", "gli", 1, "m"), Phrase("she", "", "le", 1, "f"),
            Phrase("we", "", "ci", 2, ""), Phrase("they", "", "", 3, "")]  # fmt: skip


def spaced(*parts):
    """The parts that are not empty, with a space between them."""
    return " ".join(part for part in parts if part)


def sound(word):
    """How a word begins: "vowel"; "heavy", as zio, specchio, gnomo, xilofono, psicologo, yogurt do; or "plain"."""
    return "vowel" if word[0] in "aeiou" else "heavy" if re.match("[xyz]|gn|p[ns]|s[^aeiou]", word) else "plain"


def the(word, gender, plural):
    """The article before a word: il gatto, lo zio, l'uomo, la zia, l'oliva; i gatti, gli zii, gli uomini, le olive."""
    if plural:
        return "le" if gender == "f" else "i" if sound(word) == "plain" else "gli"
    return "l'" if sound(word) == "vowel" else "la" if gender == "f" else "il" if sound(word) == "plain" else "lo"


def a(word, gender):
    """The article before a word: un gatto, un uomo, uno zio; una zia, un'oliva."""
    if gender == "f":
        return "un'" if sound(word) == "vowel" else "una"
    return "uno" if sound(word) == "heavy" else "un"


def my(kind, gender, plural):
    """Before a noun: il mio, la mia, i miei, le mie; before one relative without the article: mio zio."""
    mine = {"m": ("mio", "miei"), "f": ("mia", "mie")}[gender][plural]
    return mine if kind == "kin" and not plural else spaced(the(mine, gender, plural), mine)


def agree(adjective, gender, plural):
    """The Italian form of an English adjective: nero, nera, neri, nere; verde, verdi; blu and rosa never change."""
    return ADJECTIVES[adjective][2 * plural + (gender == "f")]


def to(italian):
    """A phrase after the preposition a: al gatto, allo zio, all'uomo, ai gatti, agli zii, alle zie; a mio zio."""
    first, _, rest = italian.partition(" ")
    return spaced(TO.get(first, f"a {first}"), rest)


def noun_phrase(determiner, noun, plural=False, adjective=""):
    """The black cats: i gatti neri. The determiners are the, a, my, two, many; an Italian adjective comes last."""
    many, uno, molti, genders, kind = NOUNS[noun]
    english, italian, gender = (many, molti, genders[1]) if plural else (noun, uno, genders[0])
    words = {"the": the(italian, gender, plural), "a": a(italian, gender), "my": my(kind, gender, plural),
             "two": "due", "many": {"m": "molti", "f": "molte"}[gender]}  # fmt: skip
    italian = spaced(words[determiner], italian, adjective and agree(adjective, gender, plural))
    article = "an" if determiner == "a" and sound(adjective or english) == "vowel" else determiner
    pairs = ((noun, adjective),)
    return Phrase(spaced(article, adjective, english), italian, to(italian), 3 if plural else 1, gender, pairs)


def both(first, second):
    """The cat and the fox: il gatto e la volpe; masculine unless both are feminine."""
    joined = (f"{one} {word} {other}" for one, word, other in zip(first, ("and", "e", "e"), second))
    return Phrase(*joined, 3, "m" if "m" in (first.gender, second.gender) else "f", first.pairs + second.pairs)


def clause(who, base, third, english, italian, negative, pairs=()):
    """A `Sentence` about the phrase `who`, which gets the pairs of both.

    English: the verb (`base`, or `third` for he and she), negated if asked, and `english`; "be" becomes "is not", other
    verbs "does not" or "do not". Italian: "non" if negated, and `italian`, which begins with the verb.
    """
    if base == "be":
        verb = spaced(BE[who.person], "not" * negative)
    elif negative:
        verb = f"{'does' if who.person == 1 else 'do'} not {base}"
    else:
        verb = third if who.person == 1 else base
    italian = spaced(who.italian, "non" * negative, italian)
    return Sentence(spaced(who.english, verb, english), italian, who.pairs + pairs)


def being(who, adjective, negative=False):
    """The cat and the fox are sick: il gatto e la volpe sono malati.

    None for "I am sick", whose gender nobody knows, and for a noun that has an adjective already.
    """
    masculine, feminine, *_ = ADJECTIVES[adjective]
    if (not who.gender and masculine != feminine) or any(other for _, other in who.pairs):
        return None
    who = who._replace(pairs=tuple((noun, adjective) for noun, _ in who.pairs))
    italian = spaced(ESSERE[who.person], agree(adjective, who.gender, who.person > 1))
    return clause(who, "be", "", adjective, italian, negative)


def having(who, state, negative=False):
    """The cat is hungry, "has hunger": il gatto ha fame."""
    return clause(who, "be", "", state, spaced(AVERE[who.person], STATES[state][0]), negative)


def doing(who, verb, what, negative=False):
    """The cat sees an egg: il gatto vede un uovo."""
    third, *forms = VERBS[verb]
    return clause(who, verb, third, what.english, spaced(forms[who.person], what.italian), negative, what.pairs)


def pleasing(who, verb, what, negative=False):
    """The cat likes the eggs, "to the cat please the eggs": al gatto piacciono le uova. I like them: mi piacciono.

    None for "they", and with determiners other than "the" and "my".
    """
    third, one, many, *_ = PLEASING[verb]
    if not who.to or {"a", "an", "two", "many"} & {*who.english.split(), *what.english.split()}:
        return None
    italian = spaced("" if who.italian else who.to, many if what.person > 1 else one, what.italian)
    who = who._replace(italian=who.italian and who.to)
    return clause(who, verb, third, what.english, italian, negative, what.pairs)


def idiom(who, verb, negative=False):
    """The king sleeps like a log: il re dorme come un ghiro (dormouse). The kings sleep like logs: come ghiri."""
    third, *forms, english, italian, _ = IDIOMS[verb]
    english, italian = (text.split("/")[-1 if who.person > 1 else 0] for text in (english, italian))
    return clause(who, verb, third, english, spaced(forms[who.person], italian), negative)


def join(first, joint, second):
    """I am cold and it is raining: ho freddo e piove. "And" is ed before e and è."""
    word = "ed" if joint == "and" and second.italian[0] in "eè" else JOINTS[joint]
    english, italian = f"{first.english} {joint} {second.english}", f"{first.italian} {word} {second.italian}"
    return Sentence(english, italian, first.pairs + second.pairs)


# The grammar ends here; the rest draws sentences at random.

RULES = 3 * [(being, ADJECTIVES), (pleasing, PLEASING)] + 2 * [(doing, VERBS)] + [(having, STATES), (idiom, IDIOMS)]
SIZES = {"train": 2300, "validation": 200, "test": 300, "long": 200}
LONGEST = {"train": 10, "long": 14}  # words of a sentence, in either language; "long" has more than 10 in both


def draw_phrase(rng, kinds):
    """A determiner, a noun of one of the kinds, perhaps an adjective; but never "my man" or "my rich uncle"."""
    noun, kind = rng.choice([(noun, row[-1]) for noun, row in NOUNS.items() if row[-1] in kinds])
    determiner = rng.choice(["the", "the", "the", "a", "a", "two", "many"] + ["my"] * (kind != "person"))
    plural = determiner in ("two", "many") or (determiner in ("the", "my") and rng.random() < 0.4)
    adjectives = [adjective for adjective, row in ADJECTIVES.items() if kind in row[-1]]
    plain = (determiner, kind) == ("my", "kin") or rng.random() < 0.5
    return noun_phrase(determiner, noun, plural, "" if plain else rng.choice(adjectives))


def draw_clause(rng, pronoun=None, pair_share=0.0):
    """A clause about a pronoun, one noun or, in a share of the draws, two nouns of one kind."""
    while True:
        rule, table = rng.choice(RULES)
        word, row = rng.choice(list(table.items()))
        if pronoun and "person" not in row[-1]:
            continue
        kind = rng.choice(row[-1].split())
        who = pronoun or draw_phrase(rng, kind)
        if not pronoun and rng.random() < pair_share:
            who = both(who, draw_phrase(rng, kind))
        what = [draw_phrase(rng, row[-2])] if rule in (doing, pleasing) else []
        drawn = rule(who, word, *what, negative=rng.random() < 0.3)
        if drawn:
            return drawn


def draw(rng):
    """A noun phrase, a clause, or two clauses: both about one pronoun or nouns, or the second about the weather."""
    shape = rng.random()
    if shape < 0.08:
        phrase = draw_phrase(rng, ALL)
        return Sentence(phrase.english, phrase.italian, phrase.pairs)
    pronoun = rng.choice(PRONOUNS) if rng.random() < 0.35 else None
    first = draw_clause(rng, pronoun, pair_share=0.25)
    if shape < 0.6:
        return first
    second = Sentence(*rng.choice(WEATHER)) if shape < 0.65 else draw_clause(rng, pronoun)
    if first.english.split()[-1] == second.english.split()[-1]:  # "I am sad but I am sad"
        return draw(rng)
    return join(first, rng.choice(list(JOINTS) if pronoun else ["and", "but"]), second)


def part_of(sentence, held_out):
    """The part of the set that a sentence may belong to, None if there is none."""
    lengths = [len(text.split()) for text in sentence[:2]]
    nouns = [noun for noun, _ in sentence.pairs]
    parts = {held_out[pair] for pair in sentence.pairs if pair in held_out}
    if len(set(nouns)) < len(nouns) or len(parts) > 1 or max(lengths) > LONGEST["long"]:
        return None
    if max(lengths) <= LONGEST["train"]:
        return parts.pop() if parts else "train"
    return "long" if min(lengths) > LONGEST["train"] and not parts else None


def language_pair(seed=42):
    """The set as rows of the table.

    No sentence occurs twice. "test" holds out one adjective for every noun, and "validation" a different one for every
    second noun. Each sentence of these two parts has such a pair, which occurs in no other part. All their words also
    occur in "train".
    """
    rng = random.Random(seed)
    held_out = {}
    for kind in ALL.split():
        nouns = [noun for noun, row in NOUNS.items() if row[-1] == kind]
        adjectives = [word for word, row in ADJECTIVES.items() if kind in row[-1] and word not in STATES]
        for i, noun in enumerate(nouns):  # in turn, so that no adjective loses many nouns: black cat, white dog …
            held_out[noun, adjectives[i % len(adjectives)]] = "test"
            if i % 2:
                held_out[noun, adjectives[(i + 2) % len(adjectives)]] = "validation"
    parts = {part: {} for part in SIZES}
    parts["train"].update([*WEATHER, ("good luck", "in bocca al lupo")])
    known = set()  # the words of "train"
    while any(len(parts[part]) < size for part, size in SIZES.items()):
        sentence = draw(rng)
        part, words = part_of(sentence, held_out), {*sentence.english.split(), *sentence.italian.split()}
        if part and len(parts[part]) < SIZES[part] and (part == "train" or words <= known):
            parts[part][sentence.english] = sentence.italian
            known |= words
    return [
        {"split": part, "english": english, "italian": italian}
        for part, sentences in parts.items()
        for english, italian in sentences.items()
    ]


if __name__ == "__main__":
    write_table(DATA / "english_italian.tsv", language_pair())
