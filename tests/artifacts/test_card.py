"""What an artifact says about itself, and which texts of the user's are in it."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest

from fewfit import FewShotClassifier, LinearProbe, MultiLabelClassifier, ZeroShot, load
from fewfit.artifacts.card import code, hub_name
from fewfit.artifacts.files import CARD
from fewfit.artifacts.schema import MANIFEST, TENSORS
from fewfit.errors import ArtifactError, InputError, ModelWarning
from fewfit.models import FakeModel
from fewfit.observations import Status
from fewfit.prompts import InContext
from fewfit.task import PROBE
from tests.estimators.test_classifier import LABELS, TEXTS, Y, make
from tests.estimators.test_fitted import edit


def card(folder) -> tuple[dict, str]:
    """The head, as YAML reads it, and the text."""
    _, head, text = (folder / CARD).read_text(encoding="utf-8").split("---\n", 2)
    lines = (line.split(": ", 1) for line in head.splitlines())
    return {name: json.loads(value) for name, value in lines}, text


def test_the_card_says_what_was_fitted_and_how_it_is_loaded(tmp_path):
    clf = make("fake").fit(TEXTS, Y)
    expected = clf.expected_accuracy()
    clf.save(tmp_path / "task")
    head, text = card(tmp_path / "task")
    assert head == {
        "library_name": "fewfit",
        "pipeline_tag": "text-classification",
        "tags": ["fewfit", "few-shot", "text-classification"],
    }
    low, high = expected.interval
    assert f"{expected.accuracy:.2f} (95 % interval {low:.2f} to {high:.2f})" in text
    assert "| labelled examples | 6 |" in text
    assert "    {text} This is about {mask}." in text
    assert "| `pos` | `good`, `fine` | 3 |" in text
    assert "| frozen model | `fake` |" in text
    source = text.split("```python\n")[1].split("```")[0]
    source = source.replace("FOLDER or OWNER/NAME", str(tmp_path / "task"))
    said: dict = {}
    exec(source, said)
    assert said["clf"].predict(["good"]).tolist() == ["pos"]
    # what is known of it survives a way through a folder
    load(tmp_path / "task", store=None).save(tmp_path / "again")
    assert card(tmp_path / "again")[1] == text


def test_nothing_in_a_card_is_markup(tmp_path):
    labels = {"<b>|x|</b>\n# no": "``bad``", "---\nlicense: mit": "good"}
    y = [list(labels)[name == "pos"] for name in Y]
    make("fake", labels=labels, template="---\n{text}\n# {mask}").fit(TEXTS, y).save(tmp_path / "t")
    head, text = card(tmp_path / "t")
    assert "license" not in head
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# Text classifier with 2 classes"
    ]
    assert r"| `<b>\|x\|</b> # no` | ``` ``bad`` ``` | 3 |" in text
    assert code("") == ""
    assert len(code("x" * 1000)) < 400


@pytest.mark.parametrize(
    ("spec", "identity", "name"),
    [
        ("hf:FacebookAI/roberta-large@0f3c?dtype=float32", {}, "FacebookAI/roberta-large"),
        ("encoder:gpt2@0f3c?dtype=float32", {}, "gpt2"),
        ("hf:/home/me/secret?dtype=float32", {}, None),
        ("embedded", {"name": "owner/encoder"}, "owner/encoder"),
        ("fake", {"name": "toy"}, None),
        ("vllm:http://localhost:8000?model=a/b", {"name": "a/b"}, None),
        (None, {"name": "a/b"}, None),
    ],
)
def test_only_what_a_hub_has_is_named_as_the_base_model(spec, identity, name):
    assert hub_name(spec, identity) == name


def test_a_card_is_never_read_and_accepted_beside_a_manifest_only(tmp_path):
    clf = make("fake").fit(TEXTS, Y)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / CARD).write_text("my project")
    with pytest.raises(ArtifactError, match=r"other files than an artifact, 'README.md'"):
        clf.save(mine)
    assert (mine / CARD).read_text() == "my project"
    folder = tmp_path / "task"
    clf.save(folder)
    original = (folder / CARD).read_bytes()
    (folder / CARD).write_bytes(b"\xff\x00")
    load(folder, store=None, verify=True)
    (folder / CARD).unlink()
    os.mkfifo(folder / CARD)  # reading it would wait for ever
    load(folder, store=None, verify=True)
    clf.save(folder)
    assert (folder / CARD).read_bytes() == original


# -------------------------------------------------------------------------- whose texts are kept

SECRET = [f"{text} of Mrs Smith" for text in TEXTS]


def everything(folder) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def several(**options) -> MultiLabelClassifier:
    return MultiLabelClassifier("fake", store=None, **options)


@pytest.mark.parametrize(
    ("fit", "y"), [(lambda: make("fake").fit, Y), (lambda: several().fit, [[name] for name in Y])]
)
def test_no_text_of_the_user_is_kept_unless_asked_for(fit, y, tmp_path):
    clf = fit()(SECRET, y)
    clf.save(tmp_path / "task")
    assert b"Smith" not in everything(tmp_path / "task")
    assert b"Smith" not in pickle.dumps(clf)
    load(tmp_path / "task", store=None, verify=True)
    clf.save(tmp_path / "kept", keep_example=True)
    assert b"Smith" in everything(tmp_path / "kept")
    again = load(tmp_path / "kept", store=None, verify=True)
    again.save(tmp_path / "task", keep_example=True)
    assert b"Smith" in everything(tmp_path / "task")
    again.save(tmp_path / "task")
    assert b"Smith" not in everything(tmp_path / "task")
    with pytest.raises(InputError, match="keep_example: the examples of fit are not here"):
        load(tmp_path / "task", store=None).save(tmp_path / "kept", keep_example=True)


def test_the_probe_costs_a_query_where_the_calibration_asks_nothing_of_the_kind():
    for options, row in (
        ({}, {"text": ""}),
        ({"calibration": "none"}, {"text": PROBE}),
        ({"model": FakeModel(space=None), "decoder": LinearProbe()}, {"text": PROBE}),
    ):
        clf = make(**options).fit(TEXTS, Y)
        assert clf._probe.row == row
        assert clf.n_queries_ == len(TEXTS) + 1
    nothing = make(decoder=ZeroShot(), calibration="none").fit([], [])
    assert (nothing.n_queries_, nothing._probe.row) == (1, {"text": PROBE})


def test_another_answer_to_the_probe_is_found_whatever_is_decoded(tmp_path):
    class Drifted(FakeModel):
        """The same by its identity, not by its answers."""

        def stream(self, prompts, words):
            for positions, answers in super().stream(prompts, words):
                scores = answers.scores - [0.5, 0, 0]
                yield positions, replace(answers, hidden=answers.hidden[:, ::-1], scores=scores)

    for options in ({}, {"decoder": ZeroShot()}, {"decoder": LinearProbe(), "calibration": "none"}):
        make("fake", **options).fit(TEXTS, Y).save(tmp_path / "task")
        FewShotClassifier.load(tmp_path / "task", model=FakeModel(), store=None, verify=True)
        with pytest.raises(ArtifactError, match="probabilities that differ"):
            FewShotClassifier.load(tmp_path / "task", model=Drifted(), store=None, verify=True)


def test_without_an_answer_to_the_probe_nothing_is_kept_and_it_is_said(tmp_path):
    class Picky(FakeModel):
        def stream(self, prompts, words):
            for positions, answers in super().stream(prompts, words):
                lost = np.array([prompts[i].user_text == PROBE for i in positions])
                yield (
                    positions,
                    replace(
                        answers,
                        status=np.where(lost, Status.FAILED, answers.status),
                        hidden=np.where(lost[:, None], np.nan, answers.hidden),
                        scores=np.where(lost[:, None], np.nan, answers.scores),
                    ),
                )

    clf = make(Picky(), calibration="none", errors="nan")
    with pytest.warns(ModelWarning, match="by which an artifact is verified"):
        clf.fit(TEXTS, Y)
    assert clf.n_examples_ == len(TEXTS)
    clf.save(tmp_path / "task")
    assert json.loads((tmp_path / "task" / MANIFEST).read_text())["example"] is None
    again = FewShotClassifier.load(tmp_path / "task", model=Picky(), store=None, verify=True)
    assert again.predict(["good"]).tolist() == ["pos"]
    with pytest.warns(ModelWarning, match="by which an artifact is verified"):
        strict = make(Picky(), calibration="none").fit(TEXTS, Y)
    assert strict.n_examples_ == len(TEXTS), "it is no example, whose failure would end the fit"


def test_demonstrations_are_texts_and_the_card_says_so(tmp_path):
    view = InContext("{text} It was {mask}.", n=1)
    make("fake", template=view).fit(SECRET, Y).save(tmp_path / "task")
    assert b"Smith" in (tmp_path / "task" / MANIFEST).read_bytes()
    assert "whose texts are in `manifest.json`" in card(tmp_path / "task")[1]
    assert b"Smith" not in (tmp_path / "task" / CARD).read_bytes()


def test_an_artifact_of_an_earlier_version_is_read_and_verified(tmp_path):
    folder = tmp_path / "task"
    make("fake").fit(TEXTS, Y).save(folder, keep_example=True)

    def older(entries):
        del entries["counts"], entries["expected"]

    edit(folder, older)
    (folder / CARD).unlink()
    assert sorted(os.listdir(folder)) == [TENSORS, MANIFEST]
    clf = load(folder, store=None, verify=True)
    assert clf.predict(["good"]).tolist() == ["pos"]
    clf.save(tmp_path / "new")
    assert "| `neg` | `bad` |  |" in card(tmp_path / "new")[1]
    assert set(LABELS) == set(clf.classes_)
