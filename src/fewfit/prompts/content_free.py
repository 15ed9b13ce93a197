"""Inputs without content, for calibrations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewfit.errors import InputError
from fewfit.prompts.rows import Row


def pseudo_documents(
    rows: Sequence[Row], fields: Sequence[str], *, n: int, seed: int
) -> list[dict[str, str]]:
    """Draw texts of random in-domain words (Fei et al. 2023, arXiv 2305.19148, section 4).

    Field by field, each document has one word more than the field's average, drawn with replacement
    from all words of that field (lower-cased, split at white space, frequent words more often),
    and ends in " .".

    Parameters
    ----------
    rows : sequence of Row
    fields : sequence of str
    n : int
        How many documents.
    seed : int

    Raises
    ------
    InputError
        If a field holds no word in any row, or `n` is not positive.

    Examples
    --------
    >>> pseudo_documents([{"text": "Same same same"}], ["text"], n=1, seed=0)
    [{'text': 'same same same same .'}]
    """
    if n < 1:
        raise InputError(f"n_documents: at least 1 is needed, got {n}")
    rng = np.random.default_rng(seed)
    documents: list[dict[str, str]] = [{} for _ in range(n)]
    for name in fields:
        corpus = [row[name].lower().split() for row in rows]
        words = [word for text in corpus for word in text]
        if not words:
            raise InputError(f"field {name!r} has no words to draw pseudo-documents from")
        length = len(words) // len(corpus) + 1
        for document in documents:
            drawn = rng.choice(len(words), size=length)
            document[name] = " ".join(words[i] for i in drawn) + " ."
    return documents
