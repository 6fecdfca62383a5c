"""What letters and words alone give: the same analyses on vectors that no model computed.

For a battery the vectors are TF-IDF of its words, so that a scene's row is the words that its emotional text has and
its neutral one has not. For terms they are TF-IDF of the word's own letters in twos, threes and fours.
"""

import numpy as np

from affectlens.store import Activations

FLOOR_LAYER = -1


def lexical(acts: Activations) -> Activations:
    """One layer, -1, of TF-IDF vectors in the place of the activations, for the same items."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    spelt = "word" in acts.items and "carrier" in acts.items
    maker = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)) if spelt else TfidfVectorizer()
    vectors = maker.fit_transform(acts.items["word" if spelt else "text"]).toarray().astype(np.float32)
    return Activations.from_arrays(
        {"floor": vectors[:, None]}, acts.items, site="floor", layers=(FLOOR_LAYER,), model="words alone",
        battery=acts.battery, battery_sha256=acts.battery_sha256,
    )  # fmt: skip
