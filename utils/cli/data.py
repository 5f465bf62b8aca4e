"""`python3 -m utils data`: fetch and check IMDB before a class."""

from utils import datasets


def main(args):
    """Fetch IMDB, or read the archive named by IMDB_ARCHIVE, and check it; returns the exit code."""
    try:
        train, test = datasets.load("imdb")
    except (datasets.ImdbUnavailable, datasets.ImdbDamaged) as problem:
        print(problem)
        return 1
    films = [len(part.films.unique()) for part in (train, test)]
    print(f"IMDB is ready: {len(train)} training reviews of {films[0]} films, {len(test)} test reviews of {films[1]}")
    return 0
