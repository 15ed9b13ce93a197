"""One answer as bytes and back, and the key that it is found under."""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewfit.observations import Observations, ScoreSpace, Status
from fewfit.prompts import Prompt

_HEADER = struct.Struct("<BIIfiBB")  # space, W, H, label mass, tokens, status, can be censored
_SPACES = [None, *ScoreSpace]
_KNOWN = {int(Status.OK), int(Status.TRUNCATED)}


class Row(NamedTuple):
    """One stored answer; scores (W,), hidden (H,) and censored (W,) are None where not given."""

    space: ScoreSpace | None
    scores: NDArray[np.float32] | None
    hidden: NDArray[np.float32] | None
    label_mass: float
    n_tokens: int
    status: int
    censored: NDArray[np.bool_] | None

    @property
    def width(self) -> int:
        """H, 0 without hidden states."""
        return 0 if self.hidden is None else len(self.hidden)

    @property
    def only_bounds(self) -> bool:
        """Whether no score of it is more than a bound, as versions before kept them."""
        return self.censored is not None and self.censored.size > 0 and bool(self.censored.all())


def model_digest(identity: Mapping[str, str]) -> bytes:
    """Hash an identity; no two identities give the same bytes to hash."""
    digest = hashlib.blake2b(digest_size=20, person=b"fewfit-model")
    digest.update(_joined(sum(sorted(identity.items()), ())))
    return digest.digest()


def answer_keys(
    identity: Mapping[str, str], prompts: Sequence[Prompt], words: Sequence[str]
) -> list[bytes]:
    """Hash each prompt with everything else that decides its answer.

    Identity, words and parts are each preceded by how many texts there are of them: no two
    questions give the same bytes to hash.
    """
    named = sum(sorted(identity.items()), ())
    common = hashlib.blake2b(digest_size=20, person=b"fewfit-v2")
    common.update(_counted(named) + _counted(words))
    keys = []
    for prompt in prompts:
        digest = common.copy()
        digest.update(_counted([text for part in prompt.parts for text in part]))
        keys.append(digest.digest())
    return keys


def first_keys(
    identity: Mapping[str, str], prompts: Sequence[Prompt], words: Sequence[str]
) -> list[bytes]:
    """Return the keys of the first schema, by which old stores are read on.

    They have no border between words and parts; that a row has a score for each word has to be
    looked at.
    """
    common = hashlib.blake2b(digest_size=20, person=b"fewfit-v1")
    common.update(_joined((*sum(sorted(identity.items()), ()), "", *words)))
    keys = []
    for prompt in prompts:
        digest = common.copy()
        digest.update(_joined([text for part in prompt.parts for text in part]))
        keys.append(digest.digest())
    return keys


def knowable(answers: Observations) -> NDArray[np.bool_]:
    """Return which rows are whole answers, shape (N,): the others must not be kept as known."""
    known = np.isin(answers.status, list(_KNOWN)) & ~answers.unlisted
    for array in (answers.scores, answers.hidden):
        if array is not None:
            known &= np.isfinite(array).all(axis=1)
    return known


def pack(answers: Observations, j: int) -> bytes:
    """Return row `j` as bytes, its checksum at the end."""

    def raw(array: Any) -> bytes:
        return b"" if array is None else array[j].astype("<f4").tobytes()

    body = (
        _HEADER.pack(
            _SPACES.index(answers.space),
            0 if answers.scores is None else answers.scores.shape[1],
            0 if answers.hidden is None else answers.hidden.shape[1],
            float(answers.label_mass[j]),
            int(answers.n_tokens[j]),
            int(answers.status[j]),
            answers.censored is not None,
        )
        + raw(answers.scores)
        + raw(answers.hidden)
        + (b"" if answers.censored is None else np.packbits(answers.censored[j]).tobytes())
    )
    return body + zlib.crc32(body).to_bytes(4, "little")


def unpack(blob: object, words: Sequence[str]) -> Row | None:
    """Return a stored row; None if it is damaged, or no answer about so many words."""
    if not isinstance(blob, bytes) or len(blob) < _HEADER.size + 4:
        return None
    body, checksum = blob[:-4], blob[-4:]
    if zlib.crc32(body).to_bytes(4, "little") != checksum:
        return None
    space, W, H, mass, tokens, status, censors = _HEADER.unpack_from(body)
    end = _HEADER.size + 4 * (W + H)
    if (
        space >= len(_SPACES)
        or (len(words) if space else 0) != W
        or status not in _KNOWN
        or tokens < -1
        or not (math.isnan(mass) or mass >= 0)
        or censors > 1
        or len(body) != end + censors * -(-W // 8)
    ):
        return None
    numbers = np.frombuffer(body[_HEADER.size : end], dtype="<f4")
    if not np.isfinite(numbers).all() or not (space or H):
        return None
    bits = np.frombuffer(body[end:], dtype=np.uint8)
    return Row(
        _SPACES[space],
        numbers[:W] if space else None,
        numbers[W:] if H else None,
        mass,
        tokens,
        status,
        np.unpackbits(bits, count=W).astype(bool) if censors else None,
    )


def join(rows: Sequence[Row], words: Sequence[str]) -> Observations:
    """Put rows of the same space and width together; nothing of them was asked now."""
    first, censored = rows[0], None
    if any(row.censored is not None for row in rows):
        none = np.zeros(len(words), dtype=bool)
        censored = np.stack([none if row.censored is None else row.censored for row in rows])

    def stacked(name: str) -> Any:
        given = getattr(first, name) is not None
        return np.stack([getattr(row, name) for row in rows]) if given else None

    return Observations(
        columns=tuple(words),
        scores=stacked("scores"),
        space=first.space,
        hidden=stacked("hidden"),
        label_mass=np.array([row.label_mass for row in rows]),
        n_tokens=np.array([row.n_tokens for row in rows]),
        status=np.array([row.status for row in rows]),
        asked=np.zeros(len(rows), dtype=bool),
        censored=censored,
    )


def _counted(texts: Sequence[str]) -> bytes:
    return len(texts).to_bytes(8, "little") + _joined(texts)


def _joined(texts: Iterable[str]) -> bytes:
    """Join texts so that no two lists of texts give the same bytes: each after its length."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return b"".join(
        [piece for data in encoded for piece in (len(data).to_bytes(8, "little"), data)]
    )
