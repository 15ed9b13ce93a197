"""This library as a peer: what it takes in a process of its own, beside other programs.

Runs with the interpreter of the benchmark. A store is for what is not timed.
"""

import tempfile
import warnings
from pathlib import Path

from serving import serve  # isort: skip  # before what prints

from fewfit import FewShotClassifier
from fewfit.models import KINDS
from fewfit.tuning import tuned  # noqa: F401  (what is imported is not timed, for SetFit neither)

FLOAT32 = "embedded-en-float32"  # the encoder that SetFit trains, once others are embedded too


def fit(texts, labels, template, words, tune=None, store=None, unlabelled=None):
    """Fit a classifier, with a pool of texts where one is given; return it and its size."""
    model = FLOAT32 if FLOAT32 in KINDS else "embedded"
    classifier = FewShotClassifier(model, template=template, labels=words, tune=tune, store=store)
    classifier.fit(texts, labels, unlabelled=unlabelled)
    with tempfile.TemporaryDirectory() as folder:
        classifier.save(Path(folder) / "task")
        size = sum(file.stat().st_size for file in (Path(folder) / "task").iterdir())
    how = {} if classifier.tuning_ is None else {"tuning": classifier.tuning_.to_dict()}
    return classifier, {"bytes": size, **how}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    serve(fit, lambda classifier, texts: classifier.predict_proba(texts))
