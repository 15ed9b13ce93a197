"""Which language texts in Latin letters are in, guessed from the small words of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

ENGLISH = (
    "the and of to is it that was for you with this my not are have be but what how i we your from"
)
OTHERS = {
    "Czech": "se na je že není jsem jako ale už při nebo jsou",
    "Danish or Norwegian": "og ikke jeg det på til er med av af som har",
    "Dutch": "het een niet van ik zijn voor maar ook wordt deze heb mijn de",
    "Finnish": "ja ei että se mutta oli olen ovat kun niin myös",
    "French": "le les des une et est pas dans que qui pour je avec sur ne ce du mon mais",
    "German": "der das und ist nicht ich ein eine den zu mit auf für wie von sie es dem mein",
    "Hungarian": "és nem hogy az egy ez csak már meg de",
    "Indonesian": "yang tidak ini untuk dengan saya itu akan dari",
    "Italian": "che di non il è una sono della gli anche questo mi nel ho",
    "Polish": "nie się jest że jak na czy przez moje ale tak",
    "Portuguese": "não que uma com para é os mais muito em foi meu da",
    "Romanian": "și nu este cu sunt pe mai din pentru la",
    "Spanish": "que el una por para es está muy pero del mi se y en lo",
    "Swedish": "och det är inte jag att som för på ett har med",
    "Turkish": "bir ve bu için çok ama değil daha gibi ne",
}
"""Words that are frequent in a language; those that are English words too are left out."""

_ENGLISH = frozenset(ENGLISH.split())
_OTHERS = {name: frozenset(words.split()) for name, words in OTHERS.items()}
_LEAST = 5  # words found, under which nothing is said
_SHARE = 0.25  # of the small words; quotations and titles in English texts stay well below


class Guess(NamedTuple):
    """Another language than English, its share of the small words, and those met most often."""

    language: str
    share: float
    words: list[str]


def other_language(texts: Iterable[str]) -> Guess | None:
    """Return the language that a good part of the texts is in, where it is not English.

    Small words are counted, those of English against those of fifteen other languages written in
    Latin letters. It is a guess: relatives are taken for each other, and where texts are few or
    have no such words, nothing is said.
    """
    seen = Counter(word for text in texts for word in re.findall(r"[^\W\d_]+", text.casefold()))
    english = sum(seen[word] for word in _ENGLISH)
    found = {name: sum(seen[word] for word in words) for name, words in _OTHERS.items()}
    name = max(found, key=found.__getitem__)
    share = found[name] / max(1, english + found[name])
    if found[name] < _LEAST or share < _SHARE:
        return None
    words = sorted((w for w in _OTHERS[name] if seen[w]), key=lambda w: (-seen[w], w))
    return Guess(name, share, words[:3])
