"""Artifacts of every kind, damaged and sealed again: loaded, or refused in words, and nothing else.

Nothing outside the folder is opened, nobody is called, and no environment variable is read. Run by
``test_audited.py`` in a process of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from fewfit import DecT, FewShotClassifier, MultiLabelClassifier, OffsetLogisticRegression
from fewfit.errors import FewfitError
from fewfit.models import FakeModel
from fewfit.prompts import InContext
from tests.fuzz import CASES
from tests.fuzz.mutations import spoiled, text_of

TEXTS = ["so good", "quite bad", "very good", "really bad"] * 2
Y = ["pos", "neg"] * 4
ONE = "{text} It was {mask}."
LABELS = {"neg": ["bad", "poor"], "pos": "good"}
OWN = (
    sys.prefix,
    sys.base_prefix,
    str(Path(__file__).parents[2] / "src"),
    *("/proc/mounts", "/proc/cpuinfo", "/proc/meminfo", "/proc/self/maps", "/proc/self/mountinfo"),
    *("/proc/sys/kernel", "/dev/null", "/sys/devices", "/sys/fs/cgroup"),
)
"""What libraries open on their own account."""

NAMED = ("A_SECRET", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY")
CALLS: list[str] = []
WATCHED: list[Path] = []
"""The folder that is being loaded, while it is."""


def _audit(event: str, args: tuple) -> None:
    if not WATCHED:
        return
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "exec"):
        if event != "exec":
            CALLS.append(f"{event} {args}")
    elif event == "open" and isinstance(args[0], str | bytes):
        path = os.fspath(os.path.abspath(os.fsdecode(args[0])))
        if not path.startswith((str(WATCHED[0]), *OWN)):
            CALLS.append(f"open {path}")


sys.addaudithook(_audit)


class _Environment(dict):
    """The environment, which writes down what is asked for by a name that an artifact could say."""

    def __getitem__(self, name):
        if name in NAMED:
            CALLS.append(f"environment {name}")
        return super().__getitem__(name)

    def get(self, name, default=None):
        if name in NAMED:
            CALLS.append(f"environment {name}")
        return super().get(name, default)


def _saved(kind: str, folder: Path) -> type:
    model = FakeModel()
    if kind == "multi-label":
        y = [["pos"], ["neg"], ["pos", "neg"], []] * 2
        clf = MultiLabelClassifier(model, template=ONE, store=None).fit(TEXTS, y)
    else:
        view = InContext(ONE, n=2) if kind == "in-context" else ONE
        decoder = DecT() if kind == "dect" else OffsetLogisticRegression()
        clf = FewShotClassifier(
            model, template=view, labels=LABELS, decoder=decoder, store=None
        ).fit(TEXTS, Y)
    clf.save(folder)
    return type(clf)


def sealed(folder: Path, name: str, entries: object, tensors: bytes | None = None) -> None:
    """Write a manifest with right checksums, as a forger would."""
    if isinstance(entries, dict):
        if tensors is not None and isinstance(entries.get("files"), dict):
            entries["files"] = {n: hashlib.sha256(tensors).hexdigest() for n in entries["files"]}
        try:
            canonical = json.dumps(json.loads(text_of(entries)), sort_keys=True)
        except ValueError:
            canonical = ""
        entries = {**entries, "checksum": hashlib.sha256(canonical.encode()).hexdigest()}
    (folder / name).write_bytes(text_of(entries).encode("utf-8", "surrogatepass"))


def odd_array(array: np.ndarray, rng: random.Random) -> np.ndarray:
    kinds = [
        lambda: array[:-1],
        lambda: np.concatenate([array, array]),
        lambda: array[..., :-1],
        lambda: array.ravel(),
        lambda: array[None],
        lambda: array[:0],
        lambda: np.zeros((), array.dtype),
        lambda: array * np.nan,
        lambda: array + np.inf,
        lambda: array * 1e30,
        lambda: array * 0,
        lambda: array.astype(np.float16),
        lambda: array.astype(np.int64),
        lambda: array.astype(np.float64),
        lambda: -array,
    ]
    array = np.atleast_1d(array)
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(rng.choice(kinds)())


def damaged(folder: Path, manifest: str, tensors: str, rng: random.Random) -> None:
    entries = json.loads((folder / manifest).read_text())
    del entries["checksum"]
    data = (folder / tensors).read_bytes()
    how = rng.randrange(10)
    if how < 6:
        sealed(folder, manifest, spoiled(entries, rng, rng.choice((1, 1, 2, 3))))
    elif how < 9:
        arrays = safetensors.numpy.load(data)
        name = rng.choice([*sorted(arrays), "new"])
        action = rng.randrange(4)
        if action == 0:
            arrays.pop(name, None)
        else:
            arrays[name] = odd_array(arrays.get(name, np.ones((2, 3), np.float32)), rng)
        data = safetensors.numpy.save(arrays)
        (folder / tensors).write_bytes(data)
        if action == 3:
            entries = spoiled(entries, rng)
        sealed(folder, manifest, entries, data)
    else:
        name = rng.choice([manifest, tensors])
        raw = bytearray((folder / name).read_bytes())
        for _ in range(rng.choice((1, 5, 50))):
            i = rng.randrange(len(raw))
            raw[i : i + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        (folder / name).write_bytes(bytes(raw))


@pytest.mark.parametrize("kind", ["dect", "offset", "in-context", "multi-label"])
def test_a_damaged_artifact_is_read_or_refused(kind, tmp_path, monkeypatch):
    rng = random.Random(f"artifacts {kind}")
    estimator = _saved(kind, tmp_path / "whole")
    model, outcomes = FakeModel(), {"loaded": 0, "refused": 0}
    monkeypatch.setattr(os, "environ", _Environment(os.environ))
    folder = tmp_path / "damaged"
    for _ in range(max(CASES // 5, 40)):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", folder)
        damaged(folder, "manifest.json", "decoder.safetensors", rng)
        shown = (folder / "manifest.json").read_bytes()[:3000]
        outcomes[_tried(folder, lambda: _used(estimator, folder, model), shown)] += 1
    assert outcomes["refused"] > 0


def _used(estimator, folder, model):
    clf = estimator.load(folder, model=model, store=None)
    p = clf.predict_proba(["another text", ""])
    assert p.shape == (2, len(clf.classes_))
    assert ((p >= 0) & (p <= 1) | np.isnan(p)).all()


def _tried(folder: Path, act, shown: bytes) -> str:
    CALLS.clear()
    WATCHED.append(folder.absolute())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            act()
        return "loaded"
    except FewfitError as error:
        said = str(error)
        assert said.isprintable(), shown
        assert len(said) < 2000, shown
        return "refused"
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error} of {shown!r}") from error
    finally:
        WATCHED.clear()
        assert not CALLS, (CALLS, shown)


EVIL = [
    "openai:https://evil.example/v1?model=m&key_env=A_SECRET",
    "openai:http://127.0.0.1:1/v1?model=m&key_env=A_SECRET",
    "openai:http://127.0.0.1:1/v1?model=m&hidden=http://evil.example",
    "openai:http://evil.example/v1?model=m",
    "openai-chat:https://api.openai.com/v1?model=m",
    "openai:http://evil.example/v1?model=m&fingerprint=f",
    "openai:http://127.0.0.1.evil.example/v1?model=m",
    "openai:http://localhost.evil.example/v1?model=m",
    "openai:http://127.0.0.1@evil.example/v1?model=m",
    "openai:http://0.0.0.0/v1?model=m",
    "openai:http://169.254.169.254/latest?model=m",
    "openai:http://[::ffff:10.0.0.1]/v1?model=m",
    "openai:http://10.0.0.1/v1?model=m&model=n",
    'openai:http://evil.example/v1?model=m&extra={"api_key":"x"}',
    "vllm:http://127.0.0.1:1?model=m&hidden=http://10.0.0.1",
    "sglang:https://evil.example",
    "llamacpp:http://evil.example",
    "ollama:http://evil.example?model=m",
    "embeddings:http://evil.example?model=m",
    "tei:http://evil.example",
    "hf:evil/repository",
    "hf:evil/repository@0123456789012345678901234567890123456789",
    "hf://evil.example/share",
    "hf:\\\\evil.example\\share",
    "hf:/proc/self",
    "hf:/dev/fd",
    "hf:/net/evil.example",
    "hf:../../../../proc/self",
    "encoder:evil/repository",
    "encoder:/proc/self",
    "tuned://evil.example/share",
    "tuned:/proc/self/cwd",
    "tuned:\\\\evil.example\\share",
    "os:system",
    "",
    ":",
    "\ud800",
    "hf:\x00",
    "hf:~evil/../../proc/self",
]


@pytest.mark.parametrize("spec", EVIL, ids=lambda spec: ascii(spec)[:50])
def test_no_artifact_names_a_server_a_variable_or_a_path_for_its_user(spec, tmp_path, monkeypatch):
    if spec.startswith(("hf", "encoder", "tuned")):
        with contextlib.suppress(ImportError):  # importing opens what it needs
            import huggingface_hub  # noqa: F401

            import fewfit.tuning  # noqa: F401
    _saved("dect", tmp_path / "task")
    entries = json.loads((tmp_path / "task" / "manifest.json").read_text())
    del entries["checksum"]
    entries["model_spec"] = spec
    sealed(tmp_path / "task", "manifest.json", entries)
    monkeypatch.setenv("A_SECRET", "sk-0123456789abcdef")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")
    monkeypatch.setattr(os, "environ", _Environment(os.environ))
    hits = _tried(
        tmp_path / "task",
        lambda: FewShotClassifier.load(tmp_path / "task", store=None).predict(["x"]),
        spec.encode("utf-8", "surrogatepass"),
    )
    assert hits == "refused"
    if "key_env" not in spec and spec != "\ud800":  # whoever names the model does not need it
        loaded = FewShotClassifier.load(tmp_path / "task", model=FakeModel(), store=None)
        assert len(loaded.predict(["x"])) == 1
