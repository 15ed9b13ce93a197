from __future__ import annotations

import hashlib
import json
import os
import pickle

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewfit import DecT, FewShotClassifier, LinearProbe, OffsetLogisticRegression, ZeroShot
from fewfit.artifacts.files import CARD
from fewfit.artifacts.schema import MANIFEST, TENSORS, read
from fewfit.calibration import BatchCalibration, DomainContextCalibration
from fewfit.errors import ArtifactError, FewfitError, ModelError, ModelMismatchError
from fewfit.models import FakeModel
from tests import warm
from tests.estimators.test_classifier import LABELS, TEXTS, Y, make

NEW = ["good", "bad", "", "something else entirely"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts") / "task"
    clf = make(decoder=DecT()).fit(TEXTS, Y)
    clf.save(folder)
    return folder, clf.predict_proba(NEW)


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to damage."""
    copy = tmp_path / "task"
    copy.mkdir()
    for name in (MANIFEST, TENSORS):
        (copy / name).write_bytes((saved[0] / name).read_bytes())
    return copy


def load(folder, **options):
    return FewShotClassifier.load(folder, **{"model": FakeModel(), "store": None, **options})


@pytest.mark.parametrize(
    "decoder", [DecT(proto_dim=8), LinearProbe(), OffsetLogisticRegression(), ZeroShot()]
)
@pytest.mark.parametrize("model", [FakeModel(), FakeModel(space="logit"), FakeModel(space=None)])
def test_what_is_loaded_predicts_the_same_bits(tmp_path, decoder, model):
    if "scores" in decoder.requires and model.space is None:
        pytest.skip("zero-shot needs scores")
    clf = make(model, decoder=decoder).fit(TEXTS, Y)
    clf.save(tmp_path / "task")
    again = load(tmp_path / "task", model=model, verify=True)
    np.testing.assert_array_equal(again.predict_proba(NEW), clf.predict_proba(NEW))
    assert again.classes_.tolist() == clf.classes_.tolist()
    assert again.get_params()["template"] == clf.template
    assert sorted(os.listdir(tmp_path / "task")) == [CARD, TENSORS, MANIFEST]


def test_a_fresh_process_predicts_the_same_bits(saved):
    code = (
        "import sys; from fewfit import FewShotClassifier; from fewfit.models import FakeModel\n"
        "clf = FewShotClassifier.load(sys.argv[1], model=FakeModel(), store=None, verify=True)\n"
        f"print([[x.hex() for x in row] for row in clf.predict_proba({NEW!r}).tolist()])\n"
        "print(sorted({'pickle', 'joblib.numpy_pickle'} & set(sys.argv)))"
    )
    out = warm.run(code, saved[0])
    expected = [[x.hex() for x in row] for row in saved[1].tolist()]
    assert out.splitlines()[0] == str(expected)


def test_integer_classes_survive(tmp_path):
    clf = make(labels={0: "bad", 1: "good"}).fit(TEXTS, [int(name == "pos") for name in Y])
    clf.save(tmp_path / "task")
    assert load(tmp_path / "task").predict(["good"]).tolist() == [1]


@pytest.mark.parametrize(
    "calibration",
    [
        DomainContextCalibration(n_documents=np.int64(2), seed=np.int8(3)),
        BatchCalibration(strength=np.float32(0.5)),
    ],
)
def test_numbers_of_numpy_survive_in_parameters(tmp_path, calibration):
    decoder = DecT(proto_dim=np.int64(8), random_state=np.int64(1), normalize=np.bool_(False))
    clf = make(decoder=decoder, calibration=calibration, max_queries=np.int64(100)).fit(TEXTS, Y)
    clf.save(tmp_path / "task")
    again = load(tmp_path / "task", max_queries=np.int64(10))
    np.testing.assert_array_equal(again.predict_proba(NEW), clf.predict_proba(NEW))
    assert again.calibration == calibration


def test_saving_again_replaces_whole(saved, folder):
    clf = make(decoder=ZeroShot()).fit(TEXTS, Y)
    clf.save(folder)
    assert type(load(folder).decoder_) is ZeroShot
    assert os.listdir(folder.parent) == [folder.name]


def test_nothing_but_an_artifact_is_overwritten(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "thesis.txt").write_text("years of work")
    clf = make().fit(TEXTS, Y)
    with pytest.raises(ArtifactError, match="holds other files"):
        clf.save(tmp_path / "task")
    with pytest.raises(ArtifactError, match="not a folder"):
        clf.save(tmp_path / "task" / "thesis.txt")
    assert (tmp_path / "task" / "thesis.txt").read_text() == "years of work"


def test_a_failed_save_leaves_the_old_artifact(folder, monkeypatch):
    before = {name: (folder / name).read_bytes() for name in (MANIFEST, TENSORS)}

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match="No space left"):
        make(decoder=ZeroShot()).fit(TEXTS, Y).save(folder)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert os.listdir(folder.parent) == [folder.name]


def test_another_model_is_refused_by_the_field_that_differs(saved):
    with pytest.raises(ModelMismatchError, match="seed was '0', this model has '1'"):
        load(saved[0], model=FakeModel(seed=1))
    with pytest.raises(ModelMismatchError, match="hidden_size was '16'"):
        load(saved[0], model=FakeModel(hidden_size=4))
    with pytest.raises(ModelMismatchError, match="another frozen model"):
        load(saved[0], model="embedded")
    with pytest.raises(ModelError, match="pass it as model="):
        load(saved[0], model=None)


def test_verification_replays_the_example(folder):
    edit(folder, lambda m: m["example"].update(probabilities=[0.5, 0.5]))
    load(folder)
    with pytest.raises(ArtifactError, match="probabilities that differ"):
        load(folder, verify=True)


def test_only_own_decoders_are_saved(tmp_path):
    class Mine(ZeroShot):
        pass

    with pytest.raises(ArtifactError, match="this one has Mine"):
        make(decoder=Mine()).fit(TEXTS, Y).save(tmp_path / "task")


@pytest.mark.parametrize("name", [MANIFEST, TENSORS])
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_found(saved, tmp_path_factory, name, data):
    folder = tmp_path_factory.mktemp("flipped")
    contents = {file: (saved[0] / file).read_bytes() for file in (MANIFEST, TENSORS)}
    position = data.draw(st.integers(0, len(contents[name]) - 1))
    bit = data.draw(st.integers(0, 7))
    flipped = bytearray(contents[name])
    flipped[position] ^= 1 << bit
    for file, content in contents.items():
        (folder / file).write_bytes(flipped if file == name else content)
    try:
        manifest, arrays = read(folder)
    except ArtifactError:
        return
    # What is left are bytes that mean nothing: white space between the manifest's entries.
    original, tensors = read(saved[0])
    assert name == MANIFEST
    assert manifest == original
    assert all(np.array_equal(arrays[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("name", [MANIFEST, TENSORS])
def test_truncated_missing_and_foreign_files_are_refused(folder, name):
    content = (folder / name).read_bytes()
    foreign = [
        content[:-2],
        content[: len(content) // 2],
        b"",
        content + b"x",
        b"\xff\xfe\x00junk",
        pickle.dumps({"a": 1}),
        b"{}",
        b"[1, 2]",
        b"null",
        b'"text"',
        b"[" * 100_000,
    ]
    for damaged in foreign:
        (folder / name).write_bytes(damaged)
        with pytest.raises(ArtifactError):
            load(folder)
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        load(folder)


def test_links_and_other_kinds_of_files_are_refused(folder, saved):
    for name in (MANIFEST, TENSORS):
        original = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).symlink_to(saved[0] / name)
        with pytest.raises(ArtifactError, match="links are not followed"):
            load(folder)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(ArtifactError, match="not a regular file"):
            load(folder)
        (folder / name).unlink()
        (folder / name).write_bytes(original)
    load(folder)


def edit(folder, change) -> None:
    """Change the manifest and give it a right checksum again, as a forger would."""
    entries = json.loads((folder / MANIFEST).read_text())
    change(entries)
    del entries["checksum"]
    canonical = json.dumps(entries, sort_keys=True, ensure_ascii=True).encode()
    entries["checksum"] = hashlib.sha256(canonical).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(entries))


def replace_tensors(folder, arrays) -> None:
    data = safetensors.numpy.save(arrays)
    (folder / TENSORS).write_bytes(data)
    edit(folder, lambda m: m["files"].update({TENSORS: hashlib.sha256(data).hexdigest()}))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(schema_version=2),
        lambda m: m.update(schema_version="1"),
        lambda m: m.pop("template"),
        lambda m: m.update(extra=1),
        lambda m: m["decoder"].update(name="os.system"),
        lambda m: m["decoder"]["parameters"].update(evil=1),
        lambda m: m["decoder"]["parameters"].update(lr=[1]),
        lambda m: m["calibration"].update(name="builtins.eval"),
        lambda m: m.update(template="{text} no slot"),
        lambda m: m.update(labels=[["a", ["x"]]]),
        lambda m: m.update(labels=[["a", ["x"]], ["b", ["x"]]]),
        lambda m: m.update(labels=[["a", ["x"]], ["b", ["y"]], ["c", ["z"]]]),
        lambda m: m["files"].update({"../../etc/passwd": "0" * 64}),
        lambda m: m.update(files={"../" + TENSORS: m["files"][TENSORS]}),
        lambda m: m["files"].clear(),
        lambda m: m.update(model_identity=[]),
        lambda m: m.update(n_examples="many"),
        lambda m: m["example"].update(probabilities=["x"]),
        lambda m: m.update(counts=[1]),
        lambda m: m.update(expected={"accuracy": 1.0}),
    ],
)
def test_a_forged_manifest_is_refused(folder, change):
    edit(folder, change)
    with pytest.raises(ArtifactError):
        load(folder)


def test_a_key_given_twice_is_refused(folder):
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace("{", '{"template": "{text} {mask}",', 1))
    with pytest.raises(ArtifactError, match="occurs twice"):
        load(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.pop("W_"),
        lambda a: a.update(extra=np.zeros(2)),
        lambda a: a.update({"../../x": np.zeros(2)}),
        lambda a: a.update(W_=a["W_"] * np.nan),
        lambda a: a.update(r_=a["r_"] + np.inf),
        lambda a: a.update(W_=a["W_"][:-1]),
        lambda a: a.update(r_=np.zeros(3)),
        lambda a: a.update(z_=a["z_"].astype(np.int64)),
        lambda a: a.update(W_=a["W_"].ravel()),
        lambda a: a.update(prior=np.zeros(3)),
        lambda a: a.pop("prior"),
    ],
)
def test_forged_tensors_are_refused(folder, change):
    arrays = safetensors.numpy.load((folder / TENSORS).read_bytes())
    change(arrays)
    replace_tensors(folder, arrays)
    with pytest.raises(ArtifactError):
        load(folder)


def test_arrays_of_any_layout_survive(tmp_path, monkeypatch):
    clf = make(decoder=DecT()).fit(TEXTS, Y)
    expected = clf.predict_proba(NEW)
    clf.decoder_.W_ = np.asfortranarray(clf.decoder_.W_)
    clf.decoder_.z_ = np.repeat(clf.decoder_.z_, 2, axis=1)[:, ::2]
    clf.save(tmp_path / "task")
    np.testing.assert_array_equal(load(tmp_path / "task").predict_proba(NEW), expected)


def test_every_refusal_is_one_of_ours(folder):
    (folder / MANIFEST).write_text("{")
    with pytest.raises(FewfitError) as error:
        load(folder)
    assert isinstance(error.value, ValueError)
    assert str(folder) in str(error.value)


def test_it_is_small(tmp_path, embedded):
    clf = make(embedded, labels=LABELS, decoder=DecT()).fit(TEXTS, Y)
    clf.save(tmp_path / "task")
    size = sum(file.stat().st_size for file in (tmp_path / "task").iterdir())
    assert size < 4 * (128 * 384 + 2 * 128 + 2) + 4096
