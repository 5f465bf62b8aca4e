"""The language pair: correct Italian, written here by hand; and parts that hold what data/README.md says of them."""

import re
from collections import Counter, defaultdict

import pytest

from data import write_english_italian as grammar
from data.write_english_italian import being, both, doing, having, idiom, join, noun_phrase, pleasing
from utils import datasets
from utils.files import read_table, write_table

# a, the, to the; the, to the of many
ARTICLES = """
    man        un uomo          l' uomo        all' uomo         gli uomini      agli uomini
    woman      una donna        la donna       alla donna        le donne        alle donne
    boy        un ragazzo       il ragazzo     al ragazzo        i ragazzi       ai ragazzi
    girl       una ragazza      la ragazza     alla ragazza      le ragazze      alle ragazze
    king       un re            il re          al re             i re            ai re
    actress    un' attrice      l' attrice     all' attrice      le attrici      alle attrici
    gnome      uno gnomo        lo gnomo       allo gnomo        gli gnomi       agli gnomi
    brother    un fratello      il fratello    al fratello       i fratelli      ai fratelli
    sister     una sorella      la sorella     alla sorella      le sorelle      alle sorelle
    uncle      uno zio          lo zio         allo zio          gli zii         agli zii
    aunt       una zia          la zia         alla zia          le zie          alle zie
    cat        un gatto         il gatto       al gatto          i gatti         ai gatti
    dog        un cane          il cane        al cane           i cani          ai cani
    horse      un cavallo       il cavallo     al cavallo        i cavalli       ai cavalli
    donkey     un asino         l' asino       all' asino        gli asini       agli asini
    squirrel   uno scoiattolo   lo scoiattolo  allo scoiattolo   gli scoiattoli  agli scoiattoli
    eagle      un' aquila       l' aquila      all' aquila       le aquile       alle aquile
    fox        una volpe        la volpe       alla volpe        le volpi        alle volpi
    pizza      una pizza        la pizza       alla pizza        le pizze        alle pizze
    apple      una mela         la mela        alla mela         le mele         alle mele
    olive      un' oliva        l' oliva       all' oliva        le olive        alle olive
    egg        un uovo          l' uovo        all' uovo         le uova         alle uova
    ice cream  un gelato        il gelato      al gelato         i gelati        ai gelati
    book       un libro         il libro       al libro          i libri         ai libri
    flower     un fiore         il fiore       al fiore          i fiori         ai fiori
    key        una chiave       la chiave      alla chiave       le chiavi       alle chiavi
    car        un' automobile   l' automobile  all' automobile   le automobili   alle automobili
    umbrella   un ombrello      l' ombrello    all' ombrello     gli ombrelli    agli ombrelli
    mirror     uno specchio     lo specchio    allo specchio     gli specchi     agli specchi
    backpack   uno zaino        lo zaino       allo zaino        gli zaini       agli zaini
    xylophone  uno xilofono     lo xilofono    allo xilofono     gli xilofoni    agli xilofoni
"""
NEVER_CHANGES = {"blue", "pink"}
IRREGULAR = {  # io, lei, noi, loro
    "see": "vedo vede vediamo vedono",
    "want": "voglio vuole vogliamo vogliono",
    "have": "ho ha abbiamo hanno",
}

ME, HE, SHE, WE, THEY = grammar.PRONOUNS
ONE, MANY = False, True


def the(noun, plural=ONE, adjective=""):
    return noun_phrase("the", noun, plural, adjective)


def an(noun, adjective=""):
    return noun_phrase("a", noun, ONE, adjective)


def my(noun, plural=ONE, adjective=""):
    return noun_phrase("my", noun, plural, adjective)


def rows(table):
    return [re.split("  +", line.strip()) for line in table.strip().splitlines()]


PHRASES = [
    (an("cat"), "a cat", "un gatto"),
    (an("cat", "expensive"), "an expensive cat", "un gatto costoso"),
    (an("umbrella", "red"), "a red umbrella", "un ombrello rosso"),
    (an("xylophone"), "a xylophone", "uno xilofono"),
    (an("eagle", "shy"), "a shy eagle", "un' aquila timida"),
    (the("ice cream", MANY, "pink"), "the pink ice creams", "i gelati rosa"),
    (the("egg", ONE, "white"), "the white egg", "l' uovo bianco"),
    (the("egg", MANY, "white"), "the white eggs", "le uova bianche"),
    (the("key", MANY, "green"), "the green keys", "le chiavi verdi"),
    (my("backpack"), "my backpack", "il mio zaino"),
    (my("umbrella", MANY, "yellow"), "my yellow umbrellas", "i miei ombrelli gialli"),
    (my("eagle"), "my eagle", "la mia aquila"),
    (my("olive", MANY), "my olives", "le mie olive"),
    (my("uncle"), "my uncle", "mio zio"),
    (my("uncle", MANY), "my uncles", "i miei zii"),
    (my("sister"), "my sister", "mia sorella"),
    (my("aunt", MANY), "my aunts", "le mie zie"),
    (noun_phrase("two", "egg", MANY), "two eggs", "due uova"),
    (noun_phrase("two", "man", MANY, "sick"), "two sick men", "due uomini malati"),
    (noun_phrase("many", "king", MANY), "many kings", "molti re"),
    (noun_phrase("many", "actress", MANY, "rich"), "many rich actresses", "molte attrici ricche"),
    (both(the("cat"), my("aunt")), "the cat and my aunt", "il gatto e mia zia"),
]
SENTENCES = [
    # to be: the adjective agrees; of two nouns one masculine is enough
    (being(the("cat"), "black"), "the cat is black", "il gatto è nero"),
    (being(the("fox", MANY), "dirty", True), "the foxes are not dirty", "le volpi non sono sporche"),
    (being(the("egg", MANY), "cold"), "the eggs are cold", "le uova sono fredde"),
    (being(HE, "tired"), "he is tired", "è stanco"),
    (being(SHE, "tired"), "she is tired", "è stanca"),
    (being(ME, "happy"), "I am happy", "sono felice"),
    (being(WE, "sad", True), "we are not sad", "non siamo tristi"),
    (being(THEY, "happy"), "they are happy", "sono felici"),
    (being(both(the("king"), the("aunt")), "sick"), "the king and the aunt are sick", "il re e la zia sono malati"),
    (being(both(the("aunt"), the("king")), "sick"), "the aunt and the king are sick", "la zia e il re sono malati"),
    (being(both(an("girl"), my("aunt")), "sick"), "a girl and my aunt are sick", "una ragazza e mia zia sono malate"),
    # to be that is to have
    (having(the("cat", ONE, "black"), "hungry", True), "the black cat is not hungry", "il gatto nero non ha fame"),
    (having(ME, "hungry"), "I am hungry", "ho fame"),
    (having(HE, "thirsty"), "he is thirsty", "ha sete"),
    (having(SHE, "in a hurry"), "she is in a hurry", "ha fretta"),
    (having(WE, "cold", True), "we are not cold", "non abbiamo freddo"),
    (having(THEY, "afraid"), "they are afraid", "hanno paura"),
    (having(my("uncle"), "right"), "my uncle is right", "mio zio ha ragione"),
    (having(the("donkey", MANY), "sleepy"), "the donkeys are sleepy", "gli asini hanno sonno"),
    # other verbs; the subject dropped; negation without "do"
    (doing(the("dog"), "eat", an("apple"), True), "the dog does not eat an apple", "il cane non mangia una mela"),
    (doing(WE, "eat", the("egg"), True), "we do not eat the egg", "non mangiamo l' uovo"),
    (doing(SHE, "look for", my("brother")), "she looks for my brother", "cerca mio fratello"),
    (doing(the("man", MANY), "want", an("mirror")), "the men want a mirror", "gli uomini vogliono uno specchio"),
    (doing(both(an("boy"), an("girl")), "have", an("car")), "a boy and a girl have a car",
     "un ragazzo e una ragazza hanno un' automobile"),
    # to like is to please
    (pleasing(the("cat"), "like", the("olive")), "the cat likes the olive", "al gatto piace l' oliva"),
    (pleasing(the("cat"), "like", the("egg", MANY)), "the cat likes the eggs", "al gatto piacciono le uova"),
    (pleasing(the("gnome", MANY), "like", my("dog"), True), "the gnomes do not like my dog",
     "agli gnomi non piace il mio cane"),
    (pleasing(my("sister"), "like", the("cat", MANY)), "my sister likes the cats", "a mia sorella piacciono i gatti"),
    (pleasing(my("squirrel"), "like", the("key")), "my squirrel likes the key", "al mio scoiattolo piace la chiave"),
    (pleasing(both(the("king"), the("woman")), "miss", the("gnome")), "the king and the woman miss the gnome",
     "al re e alla donna manca lo gnomo"),
    (pleasing(ME, "miss", my("donkey", MANY)), "I miss my donkeys", "mi mancano i miei asini"),
    (pleasing(HE, "like", the("book"), True), "he does not like the book", "non gli piace il libro"),
    (pleasing(SHE, "like", the("book")), "she likes the book", "le piace il libro"),
    (pleasing(WE, "like", the("flower", MANY)), "we like the flowers", "ci piacciono i fiori"),
    # idioms
    (idiom(ME, "sleep"), "I sleep like a log", "dormo come un ghiro"),
    (idiom(WE, "sleep"), "we sleep like logs", "dormiamo come ghiri"),
    (idiom(the("king"), "sleep"), "the king sleeps like a log", "il re dorme come un ghiro"),
    (idiom(the("king", MANY), "sleep", True), "the kings do not sleep like logs", "i re non dormono come ghiri"),
    (idiom(ME, "eat"), "I eat like a horse", "mangio come un lupo"),
    (idiom(WE, "eat"), "we eat like horses", "mangiamo come lupi"),
    (idiom(the("aunt"), "eat", True), "the aunt does not eat like a horse", "la zia non mangia come un lupo"),
    (idiom(THEY, "eat"), "they eat like horses", "mangiano come lupi"),
    (idiom(the("car"), "cost"), "the car costs an arm and a leg", "l' automobile costa un occhio della testa"),
    (idiom(the("key", MANY), "cost"), "the keys cost an arm and a leg", "le chiavi costano un occhio della testa"),
    # two clauses
    (join(having(HE, "sleepy"), "and", being(HE, "sick")), "he is sleepy and he is sick", "ha sonno ed è malato"),
    (join(having(HE, "sleepy"), "and", being(HE, "sick", True)), "he is sleepy and he is not sick",
     "ha sonno e non è malato"),
    (join(having(ME, "hungry"), "but", grammar.Sentence(*grammar.WEATHER[2])),
     "I am hungry but it is raining cats and dogs", "ho fame ma piove a catinelle"),
    (join(doing(WE, "eat", the("pizza")), "because", having(WE, "hungry")), "we eat the pizza because we are hungry",
     "mangiamo la pizza perché abbiamo fame"),
]  # fmt: skip


@pytest.fixture(scope="module")
def parts():
    found = {}
    for row in read_table(datasets.DATA / "english_italian.tsv"):
        found.setdefault(row["split"], []).append((row["english"], row["italian"]))
    return found


@pytest.mark.parametrize("row", rows(ARTICLES), ids=lambda row: row[0])
def test_articles(row):
    noun, *wanted = row
    one, many = the(noun), the(noun, MANY)
    assert [an(noun).italian, one.italian, one.to, many.italian, many.to] == wanted
    irregular = {"man": "men", "woman": "women", "actress": "actresses", "fox": "foxes"}
    assert many.english == f"the {irregular.get(noun, noun + 's')}"


def test_no_noun_is_left_unchecked():
    assert [row[0] for row in rows(ARTICLES)] == list(grammar.NOUNS)


@pytest.mark.parametrize("adjective", grammar.ADJECTIVES)
def test_adjectives_follow_the_rules_of_the_school_grammar(adjective):
    """nero, nera, neri, nere; stanco, stanca, stanchi, stanche; verde, verde, verdi, verdi."""
    one = grammar.ADJECTIVES[adjective][0]
    stem, hard = one[:-1], one[:-1] + "h" * one.endswith("co")
    if adjective in NEVER_CHANGES:
        wanted = [one] * 4
    else:
        assert one[-1] in "oe"
        wanted = [one, stem + "a", hard + "i", hard + "e"] if one.endswith("o") else [one, one, stem + "i", stem + "i"]
    assert [grammar.agree(adjective, gender, plural) for plural in (ONE, MANY) for gender in "mf"] == wanted


@pytest.mark.parametrize("verb", grammar.VERBS)
def test_verbs_follow_the_rules_of_the_school_grammar(verb):
    """Of -are: compro, compra, compriamo, comprano; cerchiamo keeps its sound, mangiamo one i. Others by hand."""
    made = [doing(who, verb, an("cat")) for who in (ME, SHE, WE, THEY)]
    if verb in IRREGULAR:
        wanted = IRREGULAR[verb].split()
    else:
        stem = made[1].italian.removesuffix("a un gatto")  # of the third person
        we = stem.removesuffix("i") + "h" * stem.endswith("c") + "iamo"
        wanted = [stem + "o", stem + "a", we, stem + "ano"]
    assert [sentence.italian for sentence in made] == [f"{form} un gatto" for form in wanted]
    third = {"have": "has"}.get(verb, re.sub(r"^(\w+)", r"\1s", verb))  # looks for
    subjects = zip(("I", "she", "we", "they"), (verb, third, verb, verb))
    assert [sentence.english for sentence in made] == [f"{who} {form} a cat" for who, form in subjects]


@pytest.mark.parametrize(("made", "english", "italiano"), PHRASES + SENTENCES, ids=lambda value: str(value)[:40])
def test_phrases_and_sentences(made, english, italiano):
    assert (made.english, made.italian) == (english, italiano)


@pytest.mark.parametrize("article", [("psicologo", "lo", "gli", "uno"), ("pneumatico", "lo", "gli", "uno"),
                                     ("yogurt", "lo", "gli", "uno"), ("sasso", "il", "i", "un")], ids=str)  # fmt: skip
def test_first_sounds_that_no_noun_of_ours_has(article):
    word, *wanted = article
    assert [grammar.the(word, "m", ONE), grammar.the(word, "m", MANY), grammar.a(word, "m")] == wanted


def test_what_has_no_one_translation_is_not_said():
    assert being(ME, "tired") is being(THEY, "black") is None
    assert pleasing(THEY, "like", the("cat")) is pleasing(an("cat"), "like", the("dog")) is None
    assert pleasing(the("cat"), "like", an("dog")) is None
    assert being(the("cat", ONE, "black"), "tired") is None


def test_the_grammar_writes_the_stored_file(tmp_path):
    path = tmp_path / "english_italian.tsv"
    write_table(path, grammar.language_pair())
    assert path.read_bytes() == (datasets.DATA / path.name).read_bytes(), grammar.__doc__


def test_counts(parts):
    assert {part: len(pairs) for part, pairs in parts.items()} == {
        "train": 2300, "validation": 200, "test": 300, "long": 200
    }  # fmt: skip


def test_every_sentence_has_one_translation_and_stands_once(parts):
    sentences = Counter(english for pairs in parts.values() for english, _ in pairs)
    assert max(sentences.values()) == 1


def test_sentences_are_spelled_with_words_and_spaces(parts):
    for english, italiano in (pair for pairs in parts.values() for pair in pairs):
        assert re.fullmatch(r"(I|[a-z]+)( (I|[a-z]+))*", english), english
        assert re.fullmatch(r"[a-zèé]+'?( [a-zèé]+'?)*", italiano), italiano
        assert not re.search(r"\ba( ice)? [aeiou]|\ban [^aeiou]|\byou\b", english), english
        assert not re.search(r"' [^aeiou]|\b(lo|la|una|allo|alla) [aeiou]|\be [eè]", italiano), italiano


def test_every_word_stands_in_train_and_there_often(parts):
    for side in (0, 1):
        words = {part: Counter(w for pair in pairs for w in pair[side].split()) for part, pairs in parts.items()}
        assert all(words[part].keys() <= words["train"].keys() for part in parts)
        rare = {word for word, number in words["train"].items() if number < 6}
        assert rare == ({"good", "luck"}, {"in", "bocca"})[side]


def test_long_sentences_are_longer_than_all_others(parts):
    for side in (0, 1):
        lengths = {part: [len(pair[side].split()) for pair in pairs] for part, pairs in parts.items()}
        assert max(max(lengths[part]) for part in ("train", "validation", "test")) == 10
        assert (min(lengths["long"]), max(lengths["long"])) == (11, 14)


def described(english):
    """The pairs of noun and adjective in a sentence, found without the grammar: "black cat", "cats are not black"."""
    one = {form: noun for noun, (many, *_) in grammar.NOUNS.items() for form in (noun, many)}
    adjectives = grammar.ADJECTIVES.keys() - grammar.STATES.keys()  # a cat that is cold "has cold"
    noun, adjective = f"({'|'.join(sorted(one, key=len, reverse=True))})", f"({'|'.join(sorted(adjectives))})"
    phrase = rf"(?:the|an?|my|two|many) {noun}"
    found = {(one[name], word) for word, name in re.findall(rf"\b{adjective} {noun}\b", english)}
    found |= {(one[name], word) for name, word in re.findall(rf"\b{noun} (?:is|are)(?: not)? {adjective}\b", english)}
    for first, _, word in re.findall(rf"^{phrase} and {phrase} are(?: not)? {adjective}\b", english):
        found.add((one[first], word))
    return found


def test_pairs_are_found_in_sentences():
    assert described("the black cats do not see my white ice cream") == {("cat", "black"), ("ice cream", "white")}
    assert described("a cat and two foxes are not red") == {("cat", "red"), ("fox", "red")}
    assert described("the sad cat sees a fox and my egg is white") == {("cat", "sad"), ("egg", "white")}


def test_new_combinations_of_noun_and_adjective(parts):
    """Each test sentence holds a pair that no other part has, in any number; so does each validation sentence."""
    homes = defaultdict(set)
    for part, pairs in parts.items():
        for english, _ in pairs:
            for pair in described(english):
                homes[pair].add(part)
    for part, number in (("validation", 14), ("test", 31)):
        own = {pair for pair in homes if homes[pair] == {part}}
        assert all(described(english) & own for english, _ in parts[part])
        assert len(own) == number
    assert homes["cat", "black"] == {"test"}
    assert all("train" in parts_of or len(parts_of) == 1 for parts_of in homes.values())
    assert {"long"} not in homes.values()


def test_some_sentences_stand_in_train(parts):
    train = dict(parts["train"])
    for english, italiano in (("a cat", "un gatto"), ("I am hungry", "ho fame"), ("he is hungry", "ha fame"),
                              ("she is tired", "è stanca"), ("it is raining", "piove"),
                              ("it is not raining", "non piove"), ("it is raining cats and dogs", "piove a catinelle"),
                              ("good luck", "in bocca al lupo")):  # fmt: skip
        assert train[english] == italiano
