"""This library as a peer: what it takes in a process of its own, beside other programs.

Runs with the interpreter of the benchmark. A store is for what is not timed.
"""

import json
import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

REPLIES = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # what libraries print must not end up among the replies

from fewfit import FewShotClassifier  # noqa: E402
from fewfit.models import KINDS  # noqa: E402
from fewfit.tuning import tuned  # noqa: E402, F401  (what is imported is not timed, for SetFit neither)

FLOAT32 = "embedded-en-float32"  # the encoder that SetFit trains, once others are embedded too


def fit(texts, labels, template, words, tune=None, unlabelled=None, store=None):
    """Fit a classifier; return it and what it took."""
    start = time.process_time()
    model = FLOAT32 if FLOAT32 in KINDS else "embedded"
    classifier = FewShotClassifier(model, template=template, labels=words, tune=tune, store=store)
    more = {} if unlabelled is None else {"unlabelled": unlabelled}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier.fit(texts, labels, **more)
    seconds = time.process_time() - start
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        classifier.save(Path(folder) / "task")
        size = sum(file.stat().st_size for file in (Path(folder) / "task").iterdir())
    reply = {"bytes": size, "cpu_seconds": seconds, "peak_bytes": peak}
    if classifier.tuning_ is not None:
        reply["tuning"] = classifier.tuning_.to_dict()
    return classifier, reply


def main():
    """Answer requests until there are no more."""
    classifiers = []
    for line in sys.stdin:
        request = json.loads(line)
        if "fit" in request:
            classifier, reply = fit(**request["fit"])
            classifiers = [classifier]
        else:
            proba = classifiers[0].predict_proba(request["predict"]["texts"])
            reply = {"probabilities": proba.tolist()}
        REPLIES.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
