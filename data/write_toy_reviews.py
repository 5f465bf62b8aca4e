"""The small grammar behind `toy_reviews_train.tsv` and `toy_reviews_test.tsv`.

`python3 -m data.write_toy_reviews` writes them again, byte for byte.

They are mini film reviews in which the order of the words matters. What decides is the writer's own verdict: the
outcome and not the expectation, "I found it" and not "my sister called it", what follows "but" and not what follows
"although"; and "not dull" is praise. A review is dealt from shuffled decks of cards, in two rounds:

1. PHRASES give a *frame*, a review with empty <slots>: "<who> called it <bad>, but I found it <good>."
2. WORDS fill the slots: "My sister called it dull, but I found it charming."

A frame is a positive review; with each slot exchanged for its OPPOSITE it is a negative one: "My sister called it
charming, but I found it dull." Each slot takes the next card of its deck. So the two, dealt from the same decks, hold
exactly the same words if the frame has as many <good> as <bad>, and so on: one bag of words, two labels. Such reviews
are a *mirror pair*.
"""

import random
import re
from collections import Counter

from utils.datasets import DATA
from utils.files import write_table


def read_rules(text):
    """Read lines such as "greeting = good morning | hello" as {"greeting": ["good morning", "hello"]}.

    Lines with the same name are joined; lines without "=" are ignored.
    """
    rules = {}
    for line in text.splitlines():
        if "=" in line:
            name, cards = line.split("=")
            rules.setdefault(name.strip(), []).extend(card.strip() for card in cards.split("|"))
    return rules


# First block: kinds of review. Second: their sentences, in which all facts agree (praise), a fear is overcome (turn), a
# fault is outweighed (side) or denied (negation). Third: the clauses of these sentences.
PHRASES = read_rules("""
    plain    = <praise> | <setting> <praise> | <praise> <setting> | <setting> <praise> <praise>
    verdict  = <turn> | <turn> <setting> | <setting> <turn>
    contrast = <side> | <side> <setting> | <side> <turn>
    denial   = <negation> | <negation> <setting>

    praise   = <fact>, <fact>, and <fact>. | <fact>, <fact>, and <again>. | <fact>, and <again>.
    praise   = what a <joy>: <fact>, and <fact>. | <fact>, and <who> <loved> it too. | <hope>, and <found>.
    praise   = <hope>, and so it was: <fact>, and <again>.
    turn     = <fear>, but <found>. | <fear>, and yet <found>. | although <fear>, <found>.
    turn     = <found>, though <fear>. | <found>, even though <fear>. | <found>, despite the fact that <fear>.
    side     = <fault>, but <merit>. | <fault>, and yet <merit>. | although <fault>, <merit>.
    side     = <merit>, though <fault>. | <merit>, even though <fault>. | <merit>, despite the fact that <fault>.
    negation = <no>; on the contrary, <found>. | <no>; no, <found>. | <found>, and <no>. | <no>, and <no>.

    fact     = the <part> was <good> | the <part> was <really> <good> | I found the <part> <good> | I <loved> the <part>
    fact     = the film was a <joy> | everything about it was <good> | I <loved> every minute of it
    hope     = I expected it to be <good> | <who> called it <good> | the trailer made it look <good>
    fear     = I expected it to be <bad> | I thought it would be <bad> | I was told it was <bad> | I expected a <bore>
    fear     = <who> called it <bad> | <who> said it was <bad> | <who> found it <bad> | <who> called it a <bore>
    fear     = <who> <hated> it | the trailer made it look <bad>
    found    = it was <good> | it was <really> <good> | I found it <good> | it turned out to be <good> | it was a <joy>
    found    = to me it was <good> | I call it a <joy> | I <loved> it | I <really> <loved> it
    fault    = the <part> was <bad> | I found the <part> <bad> | the <part> seemed <bad> to me | I <hated> the <part>
    fault    = the first half was <bad> | the beginning was <bad> | a few scenes were <bad>
    merit    = the <part> was <good> | I found the <part> <good> | I <loved> the <part> | I <loved> the rest
    merit    = the rest was <good> | everything else was <good> | the second half was <good> | in the end it was <good>
    merit    = the film as a whole was <good>
    no       = it was not <bad> | it was not <bad> at all | it was never <bad> | I did not find it <bad>
    no       = I cannot say it was <bad> | nobody could call it <bad> | it was far from <bad> | it was not a <bore>
    no       = there was nothing <bad> about it
""")

SETTINGS = read_rules("""
    train = I saw this <film> <when>. | We watched this <film> <where>. | <when> I saw this <film> <where>.
    train = A friend and I went to see this <film> <when>.
    test  = I watched this <film> <where>. | We saw this <film> <when>. | <when> a friend and I saw this <film>.
    test  = We went to see this <film> <when>.
""")

WORDS = read_rules("""
    good  = amazing | beautiful | brilliant | charming | convincing | delightful | excellent | exciting | fantastic
    good  = great | impressive | lovely | magnificent | marvellous | memorable | gripping | graceful | remarkable
    good  = splendid | stunning | superb | terrific | touching | wonderful
    bad   = awful | bland | boring | clumsy | disappointing | dismal | dreadful | dreary | dull | feeble | flat
    bad   = forgettable | hopeless | horrible | lifeless | mediocre | pathetic | poor | shallow | stale | tedious
    bad   = terrible | tiresome | weak
    joy   = delight | gem | joy | masterpiece | pleasure | success | treat | triumph
    bore  = bore | chore | disaster | failure | flop | letdown | mess | muddle
    loved = adored | enjoyed | liked | loved
    hated = detested | disliked | hated | loathed
    again = I would see it again | I could not look away | I did not want it to end | I clapped at the end
    again = I laughed and cried | I told everybody to see it
    never = I left early | I want my money back | I fell asleep | I kept looking at my watch
    never = I could not wait for it to end | I told everybody to stay at home
    really = really | truly | simply
    part  = acting | atmosphere | dialogue | direction | editing | ending | humour | lighting | music | narration
    part  = photography | scenery | script | story | suspense
    film  = adventure | cartoon | comedy | documentary | drama | fairy tale | film | movie | musical | mystery | parody
    film  = remake | romance | satire | sequel | thriller | western
    who   = my sister | my brother | my mother | my father | my aunt | my uncle | my grandmother | my cousin
    who   = my best friend | my neighbour | my teacher | my dentist | my colleagues | half of my class | the critics
    who   = the newspaper | a famous actor | the man next to me | the couple next door | everybody at work
    when  = yesterday | this morning | last night | last week | two days ago | on Friday | on Sunday | on my birthday
    when  = after dinner | late at night | over the weekend | on a rainy afternoon | during the holidays | in December
    where = at home | at school | at a festival | at the library | on a train | on a long flight | on television
    where = on an old laptop | in a tent | in a hotel room | in a small cinema | in a crowded hall | in the open air
""")

OPPOSITE = {"good": "bad", "joy": "bore", "loved": "hated", "again": "never"}
OPPOSITE |= {negative: positive for positive, negative in OPPOSITE.items()}

FRAMES = {  # How many frames of each kind a part has.
    "train": {"plain": 110, "verdict": 160, "contrast": 120, "denial": 110},
    "mirror": {"verdict": 50, "contrast": 45, "denial": 30},
    "ordinary": {"plain": 101, "verdict": 8, "contrast": 8, "denial": 8},
}
PAIRS = 2  # How many times a frame is dealt, each time as a negative and as a positive review.

SLOT = re.compile(r"<(\w+)>")


def deal(rules, rng):
    """A shuffled deck of cards for each slot: {slot: list of cards}."""
    decks = {slot: list(cards) for slot, cards in rules.items()}
    for deck in decks.values():
        rng.shuffle(deck)
    return decks


def expand(text, decks):
    """Fill each <slot> that has a deck with the next card, then the slots of these cards, and so on."""
    cards = {slot: iter(deck) for slot, deck in decks.items()}
    while cards.keys() & SLOT.findall(text):
        text = SLOT.sub(lambda slot: next(cards[slot[1]]) if slot[1] in cards else slot[0], text)
    return text


def capitalise(text):
    """Begin each sentence with a capital."""
    return re.sub(r"(^|[.] )([a-z])", lambda start: start[0].upper(), text)


def opposite(frame):
    """Exchange each slot that has an opposite: "it was <good>, not <bad>" becomes "it was <bad>, not <good>"."""
    return SLOT.sub(lambda slot: f"<{OPPOSITE.get(slot[1], slot[1])}>", frame)


def has_mirror(frame):
    """Whether a frame and its opposite have the same slots, each the same number of times."""
    return Counter(SLOT.findall(frame)) == Counter(SLOT.findall(opposite(frame)))


def sentences(frame):
    """The set of a frame's sentences, without the setting."""
    return set(frame.replace("<setting>", "").strip(" .").split(". "))


def draw_frames(part, taken, rng):
    """Draw a part's frames, {name: frame}, whose sentences are not yet in `taken`; add these to it."""
    frames = {}
    for kind, wanted in FRAMES[part].items():
        found = 0
        for _ in range(20_000):
            frame = expand(f"<{kind}>", deal(PHRASES, rng))
            if taken.isdisjoint(sentences(frame)) and (has_mirror(frame) or part != "mirror"):
                found += 1
                frames[f"{part}-{kind}-{found}"] = frame
                taken |= sentences(frame)
            if found == wanted:
                break
        else:
            raise ValueError(
                f"{found} {part} frames of kind {kind} found, {wanted} wanted: add phrases, or lower FRAMES"
            )
    return frames


def write_reviews(frames, words, rng):
    """The rows of all reviews, shuffled. Each frame is dealt `PAIRS` times, each time as a negative and as a positive
    review from the same decks; no text occurs twice in a frame.
    """
    reviews = []
    for name, frame in frames.items():
        seen = set()
        while len(seen) < 2 * PAIRS:
            decks = deal(words, rng)
            texts = [capitalise(expand(signed, decks)) for signed in (opposite(frame), frame)]
            if seen.isdisjoint(texts):
                seen.update(texts)
                pair = len(reviews) // 2 + 1 if name.startswith("mirror") else ""
                reviews += [
                    {"label": label, "frame": name, "pair": pair, "text": text} for label, text in enumerate(texts)
                ]
    rng.shuffle(reviews)
    return reviews


def toy_reviews(seed=2017):
    """The toy set: 2 000 reviews in "train"; in "test" 500 that are mirror pairs, then 500 ordinary ones."""
    rng = random.Random(seed)
    taken = set()
    train, mirror, ordinary = (
        write_reviews(draw_frames(part, taken, rng), WORDS | {"setting": SETTINGS[half]}, rng)
        for part, half in (("train", "train"), ("mirror", "test"), ("ordinary", "test"))
    )
    return {"train": train, "test": mirror + ordinary}


if __name__ == "__main__":
    for half, reviews in toy_reviews().items():
        write_table(DATA / f"toy_reviews_{half}.tsv", reviews)
