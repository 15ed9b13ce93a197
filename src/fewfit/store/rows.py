"""The key of an answer, an answer as bytes, and many of them as observations."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewfit.observations import Observations, ScoreSpace, Status
from fewfit.prompts import Prompt

KEY_BYTES = 20
_HEADER = struct.Struct("<BIIfiBB")  # space, W, H, label mass, tokens, status, can be censored
_SPACES = [None, *ScoreSpace]
CHECKSUM_BYTES = 4
_MOST_MASS = 1.1  # servers sum probabilities in bfloat16
_KINDS = {"literal", "field", "mask"}


def model_digest(identity: Mapping[str, str]) -> bytes:
    """Hash an identity; no two identities give the same bytes to hash."""
    digest = hashlib.blake2b(digest_size=20, person=b"fewfit-model")
    digest.update(_joined(sum(sorted(identity.items()), ())))
    return digest.digest()


class Keys:
    """The keys of prompts that are asked of one model with the same label words.

    Identity, words and parts are each preceded by how many texts there are of them: no two
    questions give the same bytes to hash.

    Parameters
    ----------
    identity : mapping of str to str
    words : sequence of str
    """

    def __init__(self, identity: Mapping[str, str], words: Sequence[str]) -> None:
        named = sum(sorted(identity.items()), ())
        self._common = hashlib.blake2b(digest_size=KEY_BYTES, person=b"fewfit-v2")
        self._common.update(_counted(named) + _counted(words))

    def __call__(self, prompt: Prompt) -> bytes:
        digest = self._common.copy()
        digest.update(_counted([text for part in prompt.parts for text in part]))
        return digest.digest()


class FirstKeys:
    """The keys of the first schema, by which old stores are read on.

    They have no borders: words and parts can be taken for each other where a word is the name of
    a kind of part, identity and words where the identity has an empty name. What was stored under
    such a key is not believed.
    """

    def __init__(self, identity: Mapping[str, str], words: Sequence[str]) -> None:
        self.are_safe = "" not in identity and _KINDS.isdisjoint(words)
        self._common = hashlib.blake2b(digest_size=KEY_BYTES, person=b"fewfit-v1")
        self._common.update(_joined((*sum(sorted(identity.items()), ()), "", *words)))

    def __call__(self, prompt: Prompt) -> bytes:
        digest = self._common.copy()
        digest.update(_joined([text for part in prompt.parts for text in part]))
        return digest.digest()


class Found(NamedTuple):
    """What a look into the store gave.

    Attributes
    ----------
    positions : list of int
        Whose answers are whole, and of the form that is expected.
    answers : Observations or None
        Theirs; None if there are none.
    damaged, foreign : list of int
        Whose rows are damaged, and whose rows are whole, but not of the form of the others: other
        arrays, or hidden states of another length.
    unlisted : list of int
        Whose rows are nothing but bounds, as versions before kept them.
    """

    positions: list[int]
    answers: Observations | None
    damaged: list[int]
    foreign: list[int]
    unlisted: list[int]


class Form(NamedTuple):
    """Which arrays a row has; rows of one form fit into one block.

    Attributes
    ----------
    space : ScoreSpace or None
    width : int or None
        The length of the hidden state; None if it is not known what to expect.
    censors : bool or None
        Whether it says which scores are bounds; None as above.
    """

    space: ScoreSpace | None
    width: int | None = None
    censors: bool | None = None

    def admits(self, other: Form) -> bool:
        """Whether a row of the form `other` is as expected."""
        return (
            self.space == other.space
            and self.width in (None, other.width)
            and self.censors in (None, other.censors)
        )


def pack(key: bytes, answers: Observations, j: int) -> bytes:
    """Return row `j` as bytes, with a checksum of it and its key at the end."""
    scores, hidden, censored = answers.scores, answers.hidden, answers.censored
    body = b"".join(
        (
            _HEADER.pack(
                _SPACES.index(answers.space),
                0 if scores is None else scores.shape[1],
                0 if hidden is None else hidden.shape[1],
                answers.label_mass[j],
                answers.n_tokens[j],
                answers.status[j],
                censored is not None,
            ),
            b"" if scores is None else scores[j].astype("<f4", copy=False).tobytes(),
            b"" if hidden is None else hidden[j].astype("<f4", copy=False).tobytes(),
            b"" if censored is None else np.packbits(censored[j]).tobytes(),
        )
    )
    return body + checksum(key, body)


def is_whole(key: bytes, row: bytes) -> bool:
    """Whether a row ends with the checksum of itself and its key, as all rows do."""
    body, sealed = row[:-CHECKSUM_BYTES], row[-CHECKSUM_BYTES:]
    return bool(body) and checksum(key, body) == sealed


def sound(answers: Observations) -> NDArray[np.bool_]:
    """Return which rows may be stored: whole answers, every number can be one, some no bound."""
    mass = answers.label_mass
    good = (answers.status == Status.OK) | (answers.status == Status.TRUNCATED)
    good &= ~answers.unlisted
    good &= (answers.n_tokens >= -1) & (np.isnan(mass) | ((mass >= 0) & (mass <= _MOST_MASS)))
    for array in (answers.scores, answers.hidden):
        if array is not None:
            good &= np.isfinite(array).all(axis=1)
    return good


def unpack(rows: Mapping[int, tuple[bytes, object]], words: Sequence[str], expected: Form) -> Found:
    """Read the rows that the store has of a call.

    Parameters
    ----------
    rows : mapping of int to (key, bytes)
        The key that is in the row's checksum: none in schema 1.
    words : sequence of str
    expected : Form
        Of what is left open, the form of most rows is taken.
    """
    damaged: list[int] = []
    forms: dict[Form, list[int]] = {}
    for position, (key, blob) in rows.items():
        form = _form(key, blob, len(words)) if isinstance(blob, bytes) else None
        if form is None:
            damaged.append(position)
        else:
            forms.setdefault(form, []).append(position)
    candidates = [form for form in forms if expected.admits(form)]
    main = max(candidates, key=lambda form: len(forms[form]), default=None)
    foreign = [i for form, own in forms.items() if form != main for i in own]
    if main is None:
        return Found([], None, damaged, foreign, [])
    positions = forms[main]
    answers = _block([rows[i][1] for i in positions], main, words)
    good, bounds = sound(answers), answers.unlisted
    unlisted = [i for i, only in zip(positions, bounds, strict=True) if only]
    if not good.all():
        broken = ~good & ~bounds
        damaged += [i for i, bad in zip(positions, broken, strict=True) if bad]
        positions = [i for i, whole in zip(positions, good, strict=True) if whole]
        answers = answers[good]
    return Found(positions, answers if positions else None, damaged, foreign, unlisted)


def checksum(key: bytes, body: bytes) -> bytes:
    """Seal a body under its key."""
    return zlib.crc32(body, zlib.crc32(key)).to_bytes(CHECKSUM_BYTES, "little")


def _form(key: bytes, blob: bytes, n_words: int) -> Form | None:
    """Return the form of a row, or None if it is damaged."""
    if len(blob) < _HEADER.size + CHECKSUM_BYTES:
        return None
    space, scored, width, _, _, _, censors = _HEADER.unpack_from(blob)
    length = _HEADER.size + 4 * (scored + width) + censors * -(-scored // 8) + CHECKSUM_BYTES
    whole = (
        len(blob) == length
        and space < len(_SPACES)
        and censors in (0, 1)
        and scored == (n_words if space else 0)
        and (space or width)
        and is_whole(key, blob)
    )
    return Form(_SPACES[space], width, bool(censors)) if whole else None


def _block(blobs: Sequence[object], form: Form, words: Sequence[str]) -> Observations:
    n_words = 0 if form.space is None else len(words)
    block = np.frombuffer(
        b"".join(blobs),  # pyright: ignore[reportArgumentType]
        dtype=[
            ("form", "V9"),
            ("mass", "<f4"),
            ("tokens", "<i4"),
            ("status", "u1"),
            ("censors", "u1"),
            ("scores", "<f4", (n_words,)),
            ("hidden", "<f4", (form.width,)),
            ("bits", "u1", (-(-n_words // 8) if form.censors else 0,)),
            ("checksum", "<u4"),
        ],
    )
    column = {name: np.ascontiguousarray(block[name]) for name in block.dtype.names or ()}
    bounds = np.unpackbits(column["bits"], axis=1, count=n_words) if form.censors else None
    return Observations(
        columns=tuple(words),
        scores=None if form.space is None else column["scores"],
        space=form.space,
        hidden=column["hidden"] if form.width else None,
        label_mass=column["mass"],
        n_tokens=column["tokens"],
        status=column["status"],
        asked=np.zeros(len(block), dtype=bool),
        censored=None if bounds is None else bounds.astype(bool),
    )


def _counted(texts: Sequence[str]) -> bytes:
    return len(texts).to_bytes(8, "little") + _joined(texts)


def _joined(texts: Iterable[str]) -> bytes:
    """Join texts so that no two lists of texts give the same bytes: each after its length."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return b"".join(
        [piece for data in encoded for piece in (len(data).to_bytes(8, "little"), data)]
    )
