"""python3 -m data.write_attention_of_it: how much "it" attends to each word, for the first picture of notebook 01.

Runs notebook 09 up to where its models are trained (half a minute) and writes the weights of the one with seed 1,
averaged over the four heads of its second layer, for two sentences that differ in their last word. On another processor
training rounds differently, so the weights come out a little different.
"""

from pathlib import Path

import nbformat
import torch

from utils.files import write_table

ROOT = Path(__file__).resolve().parents[1]
SEED = 1  # of the three, the one in which the weight moves most clearly from one noun to the other


def main():
    """Write data/attention_of_it.tsv."""
    space = {}
    for cell in nbformat.read(ROOT / "notebooks" / "09_looking_at_attention.ipynb", as_version=4).cells:
        if "models" not in space and cell.cell_type == "code" and "bootstrap" not in cell.metadata.get("tags", []):
            exec(cell.source, space)
    sentences = [
        f"the trophy does not fit in the suitcase because it is too {adjective}" for adjective in ("big", "small")
    ]
    with torch.no_grad():
        _, weights = space["models"][SEED](space["to_ids"](sentences))  # (2, layers, heads, words)
    rows = []
    for sentence, row in zip(sentences, weights[:, 1].mean(dim=1)):
        words = sentence.split()
        rows += [{"adjective": words[-1], "word": word, "weight": f"{w:.3f}"} for word, w in zip(words, row.tolist())]
    write_table(ROOT / "data" / "attention_of_it.tsv", rows)


if __name__ == "__main__":
    main()
