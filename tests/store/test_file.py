"""What is kept, how much room it takes, and what of it is believed."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fewfit.errors import InputError, StoreError, StoreWarning
from fewfit.models import Capabilities, FakeModel, FrozenModel
from fewfit.observations import Observations, ScoreSpace, Status
from fewfit.store import StoredModel, clear, default_path, drop, prune, statistics
from fewfit.store.rows import FirstKeys, Form, Keys, model_digest, pack, unpack
from fewfit.store.sizes import read_size
from tests.conftest import prompts

WORDS = ("bad", "great")
FIXTURES = Path(__file__).parents[1] / "fixtures"


class Vectors(FrozenModel):
    """Hidden states of a given length, without scores; the identity does not say the length."""

    def __init__(self, H: int, *, bad: float | None = None) -> None:
        self.H, self.bad, self.queries = H, bad, 0

    capabilities = property(lambda self: Capabilities(scores=None, hidden=True))
    identity = property(lambda self: {"kind": "vectors", "model": "one"})

    def stream(self, prompts, words):
        n = len(prompts)
        self.queries += n
        hidden = np.random.default_rng(0).standard_normal((n, self.H)).astype(np.float32)
        if self.bad is not None:
            hidden[::2, 0] = self.bad
        yield (
            np.arange(n),
            Observations(
                columns=tuple(words),
                scores=None,
                space=None,
                hidden=hidden,
                label_mass=np.full(n, np.nan),
                n_tokens=np.full(n, -1),
                status=np.full(n, Status.OK),
                asked=np.ones(n, dtype=bool),
            ),
        )


def test_a_store_of_the_first_schema_is_read_on(tmp_path):
    path = tmp_path / "observations.sqlite"
    shutil.copy(FIXTURES / "store_v1.sqlite", path)
    model = FakeModel()
    texts = prompts(*(f"text number {i}" for i in range(8)))
    assert StoredModel(model, path).count(texts, WORDS) == 5
    answers = StoredModel(model, path).observe(texts, WORDS)
    assert (model.queries, answers.queries) == (3, 3)
    direct = FakeModel().observe(texts, WORDS)
    np.testing.assert_array_equal(answers.scores, direct.scores)
    np.testing.assert_array_equal(answers.hidden, direct.hidden)
    assert statistics(path)["rows"] == 8
    assert statistics(path)["models"]["(older)"] == 5


@pytest.mark.parametrize("H", [384, 1024, 4096])
def test_a_row_takes_little_more_than_its_numbers(tmp_path, H):
    n = 600
    path = tmp_path / "store.sqlite"
    StoredModel(Vectors(H), path).observe(prompts(*map(str, range(n))), WORDS)
    assert path.stat().st_size / n <= 1.2 * 4 * H


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_not_kept_as_known(tmp_path, bad):
    path = tmp_path / "store.sqlite"
    model = Vectors(4, bad=bad)
    StoredModel(model, path).observe(prompts(*map(str, range(6))), WORDS)
    assert statistics(path)["rows"] == 3


def test_another_length_is_another_answer_and_poisons_nothing(tmp_path):
    path, texts = tmp_path / "store.sqlite", prompts(*map(str, range(6)))
    first = StoredModel(Vectors(4), path).observe(texts[:4], WORDS)
    other = Vectors(8)
    with pytest.warns(StoreWarning, match="of another length than the 4 numbers .* another model"):
        mixed = StoredModel(other, path).observe(texts, WORDS)
    assert other.queries == 2  # what is stored is an answer still
    assert mixed.status.tolist() == [0, 0, 0, 0, Status.FAILED, Status.FAILED]
    np.testing.assert_array_equal(mixed.hidden[:4], first.hidden)
    assert statistics(path)["rows"] == 4
    again = StoredModel(Vectors(4), path).observe(texts, WORDS)
    assert again.queries == 2
    assert drop(path, "vectors one") == 6
    assert StoredModel(other, path).observe(texts, WORDS).queries == 6


def test_keys_have_borders():
    """The same texts, cut differently between identity, words and prompt, are other questions."""
    [whole] = prompts("x")
    kind, text = whole.parts[0]
    shorter = replace(whole, parts=whole.parts[1:])
    assert Keys({"k": "a"}, ("w",))(whole) != Keys({"k": "a"}, ("w", kind, text))(shorter)
    assert Keys({"a": "b"}, ("c",))(whole) != Keys({}, ("a", "b", "c"))(whole)
    assert model_digest({"a": "b", "c": ""}) != model_digest({"a": "b"})
    old = FirstKeys({"k": "a"}, ("w",)), FirstKeys({"k": "a"}, ("w", kind, text))
    assert old[0](whole) == old[1](shorter)
    assert [keys.are_safe for keys in old] == [True, False]


WHOLE = Observations(
    columns=WORDS,
    scores=np.zeros((1, 2)),
    space=ScoreSpace.LOGPROB,
    hidden=np.ones((1, 2)),
    label_mass=np.array([0.5]),
    n_tokens=np.array([3]),
    status=np.array([Status.OK]),
    asked=np.array([True]),
)
FORM = Form(ScoreSpace.LOGPROB)


@pytest.mark.parametrize(
    "change",
    [
        {"status": np.array([Status.FAILED])},
        {"status": np.array([77])},
        {"n_tokens": np.array([-2])},
        {"label_mass": np.array([-0.5])},
        {"label_mass": np.array([7.0])},
        {"label_mass": np.array([np.inf])},
        {"hidden": np.array([[np.nan, 1.0]])},
        {"scores": np.array([[np.inf, 1.0]])},
    ],
)
def test_a_row_with_a_right_checksum_is_not_believed_in_everything(change):
    def found(answers, words=WORDS, key=b"key"):
        return unpack({7: (key, pack(b"key", answers, 0))}, words, FORM)

    assert found(WHOLE).positions == [7]
    assert found(WHOLE, (*WORDS, "more")).damaged == [7]
    assert found(WHOLE, key=b"another's").damaged == [7]
    assert found(replace(WHOLE, **change)).damaged == [7]


def test_rows_of_other_forms_are_set_aside_and_never_joined():
    """Other spaces, lengths, arrays: those like most are taken, the others are asked again."""
    one = np.array([[True, False]])
    rows = {
        0: WHOLE,
        1: replace(WHOLE, space=ScoreSpace.LOGIT),
        2: replace(WHOLE, hidden=np.ones((1, 3))),
        3: replace(WHOLE, hidden=None),
        4: replace(WHOLE, scores=None, space=None),
        5: replace(WHOLE, censored=one),
        6: WHOLE,
    }
    packed = {i: (b"k", pack(b"k", answers, 0)) for i, answers in rows.items()}
    found = unpack(packed, WORDS, FORM)
    assert (found.positions, found.damaged, sorted(found.foreign)) == ([0, 6], [], [1, 2, 3, 4, 5])
    found = unpack(packed, WORDS, FORM._replace(width=3))
    assert (found.positions, sorted(found.foreign)) == ([2], [0, 1, 3, 4, 5, 6])
    censored = unpack({5: packed[5]}, WORDS, FORM).answers
    assert censored is not None
    assert censored.censored is not None
    assert censored.censored.tolist() == [[True, False]]


def test_a_row_of_nothing_but_bounds_is_asked_again_without_a_word():
    """Versions before kept them; no number in them is known."""
    bounds = replace(WHOLE, censored=np.ones((1, 2), dtype=bool))
    found = unpack({5: (b"k", pack(b"k", bounds, 0))}, WORDS, FORM)
    assert (found.positions, found.damaged, found.unlisted) == ([], [], [5])


def test_prune_forgets_what_was_written_first(tmp_path):
    path, texts = tmp_path / "store.sqlite", prompts(*map(str, range(400)))
    stored = StoredModel(Vectors(384), path)
    for start in range(0, 400, 50):
        stored.observe(texts[start : start + 50], WORDS)
    whole = path.stat().st_size
    gone = prune(path, whole // 2)
    assert 150 < gone < 300
    assert path.stat().st_size <= whole // 2
    assert statistics(path)["rows"] == 400 - gone
    assert stored.count(texts[gone:], WORDS) == 400 - gone
    assert stored.count(texts[:gone], WORDS) == 0
    assert clear(path) == 400 - gone
    assert statistics(path)["rows"] == 0
    with pytest.raises(InputError, match="a size"):
        prune(path, -1)


def test_a_limit_keeps_the_file_small(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWFIT_CACHE_LIMIT", "400kB")
    path, texts = tmp_path / "store.sqlite", prompts(*map(str, range(600)))
    stored = StoredModel(Vectors(384), path)
    for start in range(0, 600, 60):
        stored.observe(texts[start : start + 60], WORDS)
    assert path.stat().st_size < 600_000
    assert stored.count(texts[-60:], WORDS) == 60
    assert stored.count(texts[:60], WORDS) == 0


@pytest.mark.parametrize(
    ("text", "size"), [("1000", 1000), ("500MB", 500_000_000), ("2 GiB", 2**31), ("1.5kb", 1500)]
)
def test_sizes(text, size):
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "many", "5 XB", "1e999", "MB"])
def test_what_is_no_size(text):
    with pytest.raises(InputError, match="is not a size"):
        read_size(text)


def test_no_home_is_said(monkeypatch):
    for name in ("FEWFIT_CACHE", "XDG_CACHE_HOME", "HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(StoreError, match="there is no home folder"):
        default_path()


def test_a_store_that_is_deleted_meanwhile_is_made_again(tmp_path):
    path = tmp_path / "folder" / "store.sqlite"

    class Leaving(FakeModel):
        def stream(self, prompts, words):
            for batch in super().stream(prompts, words):
                path.unlink(missing_ok=True)
                path.parent.joinpath("store.sqlite-journal").unlink(missing_ok=True)
                yield batch

    model = Leaving(batch_size=1)
    assert StoredModel(model, path).observe(prompts("a", "b"), WORDS).queries == 2
    assert StoredModel(model, path).count(prompts("b"), WORDS) == 1  # in a new file


def test_bytes_in_the_schema_that_are_no_text(tmp_path):
    path = tmp_path / "store.sqlite"
    StoredModel(FakeModel(), path).observe(prompts("a"), WORDS)
    data = bytearray(path.read_bytes())
    where = data.index(b"answers")
    data[where] ^= 0x80
    path.write_bytes(data)
    with pytest.raises(StoreError):
        StoredModel(FakeModel(), path).observe(prompts("a"), WORDS)
    with pytest.raises(StoreError):
        sqlite3.connect(path).close() or statistics(path)
