"""What the peers share: answer requests to fit and to predict, and tell what a fit took.

A peer imports this first: what libraries print while they are imported or used goes to standard
error, and no model hub is asked. Needs nothing but Python.
"""

import json
import os
import resource
import sys
import time

REPLIES = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # what libraries print must not end up among the replies
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


def serve(fit, predict):
    """Answer until there are no more requests.

    ``fit(texts, labels)`` returns a model and its size, ``{"parameters": n, "bytes": n}``;
    ``predict(model, texts)`` a row of probabilities for each text, classes in sorted order.
    """
    model = None
    for line in sys.stdin:
        request = json.loads(line)
        if "fit" in request:
            start = time.process_time()
            model = None
            model, reply = fit(**request["fit"])
            reply["cpu_seconds"] = time.process_time() - start
            reply["peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        else:
            rows = predict(model, request["predict"]["texts"])
            reply = {"probabilities": [[float(x) for x in row] for row in rows]}
        REPLIES.write(json.dumps(reply) + "\n")
