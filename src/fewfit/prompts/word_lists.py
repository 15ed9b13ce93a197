"""Label words that are found rather than written: SciPrompt's, KPT's and MPD's ways.

You et al. 2024 (SciPrompt, arXiv 2410.01946), Hu et al. 2022 (KPT, arXiv 2108.02035), Cheng et al.
2025 (MPD, arXiv 2406.06279). Pure text and arrays: similarities come from whatever model you have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray
from sklearn.utils._param_validation import Interval

from fewfit.declare import declare
from fewfit.errors import InputError
from fewfit.parameters import checked

Weights = dict[str, float]


@declare(queries="0", reference="You et al. 2024, arXiv 2410.01946")
@checked(
    {
        "threshold": [Interval(Real, None, None, closed="both")],
        "contrast_threshold": [Interval(Real, None, None, closed="both")],
        "n": [Interval(Integral, 1, None, closed="left")],
    }
)
def retrieve_words(
    names: Mapping[str, str],
    terms: Sequence[str],
    similarity: NDArray[np.floating],
    contrast: NDArray[np.floating] | None = None,
    *,
    threshold: float = 0.5,
    contrast_threshold: float = 0.9,
    n: int = 10,
) -> dict[str, Weights]:
    """Choose and weigh label words from a list of terms (SciPrompt, steps 2 and 3).

    A term is kept for a class if its similarity to the class's name is *above* `threshold` and its
    contrast score is *below* `contrast_threshold`, each strictly; its weight is the similarity,
    above 0 and at most 1. A term that several classes would keep goes to the most similar one (the
    reference code gives it to the first). The name itself is always kept, with weight 1.

    Parameters
    ----------
    names : mapping of class to str
        The K classes and their names.
    terms : sequence of str, length T
    similarity : ndarray of shape (K, T)
        Cosines of names and terms, rows in the order of `names`.
    contrast : ndarray of shape (K, T), optional
        A second model's score, low for a good term.
    n : int, default=10
        At most so many words per class, the name included.

    Returns
    -------
    dict of class to dict of word to weight
        What :class:`fewfit.Verbalizer` and ``labels=`` take.

    Examples
    --------
    >>> retrieve_words({"phys": "physics", "bio": "biology"}, ["quantum", "cell"],
    ...                np.array([[0.8, 0.1], [0.2, 0.7]]))
    {'phys': {'physics': 1.0, 'quantum': 0.8}, 'bio': {'biology': 1.0, 'cell': 0.7}}
    """
    cosine = np.minimum(np.asarray(similarity, dtype=np.float64), 1.0)
    if cosine.shape != (len(names), len(terms)):
        raise InputError(
            f"similarity: expected shape {(len(names), len(terms))}, got {cosine.shape}"
        )
    keep = cosine > max(threshold, 0.0)  # a weight below 0 no label word has
    if contrast is not None:
        keep &= np.asarray(contrast) < contrast_threshold
    owner = np.where(keep, cosine, -np.inf).argmax(axis=0)
    taken = {name.casefold() for name in names.values()}
    found: dict[str, Weights] = {}
    for k, (label, name) in enumerate(names.items()):
        words = {name: 1.0}
        for j in np.argsort(-cosine[k], kind="stable"):
            term = terms[int(j)].strip()
            if len(words) < n and keep[k, j] and owner[j] == k and term.casefold() not in taken:
                words[term] = float(cosine[k, j])
                taken.add(term.casefold())
        found[label] = words
    return found


@declare(queries="0", reference="Cheng et al. 2025, arXiv 2406.06279")
@checked({"n": [Interval(Integral, 1, None, closed="left")]})
def expand_words(
    names: Mapping[str, str],
    vocabulary: Sequence[str],
    vectors: NDArray[np.floating],
    *,
    n: int = 10,
) -> dict[str, Weights]:
    """Add the nearest words of the model's own vocabulary, all of the same weight (MPD, step 6a).

    Parameters
    ----------
    names : mapping of class to str
        One label word per class; each is in `vocabulary`.
    vocabulary : sequence of str, length V
        Words, as they are asked.
    vectors : ndarray of shape (V, H)
        The rows of the model's output matrix for them.
    n : int, default=10
        Words per class, the given one included. A word that is near to several classes goes to
        the nearest.
    """
    place = {word.casefold(): i for i, word in reversed(list(enumerate(vocabulary)))}
    for word in names.values():
        if word.casefold() not in place:
            raise InputError(f"names: {word!r} is not in the vocabulary; choose another word")
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    own = unit[[place[word.casefold()] for word in names.values()]]
    nearest = retrieve_words(names, vocabulary, own @ unit.T, threshold=-np.inf, n=n)
    return {label: dict.fromkeys(words, 1.0) for label, words in nearest.items()}


@declare(
    queries="0, and 1 per unlabelled example once", reference="Hu et al. 2022, arXiv 2108.02035"
)
@checked({"fraction": [Interval(Real, 0, 1, closed="both")]})
def drop_improbable(
    labels: Mapping[str, Weights],
    vocabulary: Sequence[str],
    mean_scores: NDArray[np.floating],
    *,
    fraction: float = 0.5,
) -> dict[str, Weights]:
    """Drop the words that the model hardly ever expects at the slot (KPT's refinement).

    Parameters
    ----------
    labels : mapping of class to dict of word to weight
        The first word of a class is its name: it stays where nothing else would.
    vocabulary : sequence of str, length V
    mean_scores : ndarray of shape (V,)
        The model's score of each word, averaged over unlabelled examples.
    fraction : float, default=0.5
        So much of the vocabulary counts as improbable: the words with the lowest scores.
    """
    n_low = int(fraction * len(vocabulary))
    low = {vocabulary[i] for i in np.argsort(mean_scores, kind="stable")[:n_low]}
    kept: dict[str, Weights] = {}
    for label, words in labels.items():
        rest = {word: weight for word, weight in words.items() if word not in low}
        kept[label] = rest or dict([next(iter(words.items()))])
    return kept
