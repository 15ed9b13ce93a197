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


def fit(texts, labels, template, words, tune=None, store=None):
    """Fit a classifier; return it and what it took."""
    start = time.process_time()
    model = FLOAT32 if FLOAT32 in KINDS else "embedded"
    classifier = FewShotClassifier(model, template=template, labels=words, tune=tune, store=store)
    classifier.fit(texts, labels)
    reply = {"cpu_seconds": time.process_time() - start, **costs(classifier)}
    if classifier.tuning_ is not None:
        reply["tuning"] = classifier.tuning_.to_dict()
    return classifier, reply


def with_pool(classifier, texts, labels, unlabelled):
    """Fit another on the same model, tuned or not, and texts without labels."""
    start = time.process_time()
    given = {"template": classifier.template, "labels": classifier.labels, "store": None}
    other = FewShotClassifier(classifier.task_.model, **given)
    other.fit(texts, labels, unlabelled=unlabelled)
    return other, {"cpu_seconds": time.process_time() - start, **costs(other)}


def costs(classifier):
    """Return the size of its artifact, and the most memory that this process has taken."""
    with tempfile.TemporaryDirectory() as folder:
        classifier.save(Path(folder) / "task")
        size = sum(file.stat().st_size for file in (Path(folder) / "task").iterdir())
    return {"bytes": size, "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def main():
    """Answer requests until there are no more."""
    warnings.simplefilter("ignore")
    classifier, answers = None, None
    for line in sys.stdin:
        request = json.loads(line)
        if "fit" in request:
            (classifier, reply), answers = fit(**request["fit"]), None
        elif "pool" in request:
            classifier, reply = with_pool(classifier, **request["pool"])
        else:  # always of the same texts, and of the same model since it was fitted
            answers = answers or classifier.observe(request["predict"]["texts"])
            reply = {"probabilities": classifier.decode(answers).tolist()}
        REPLIES.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
