"""Other libraries as rows of a comparison, each in an environment of its own.

A peer is a program that reads one JSON object a line on standard input and answers each with one
line: ``{"fit": {"texts": [...], "labels": [...]}}`` with ``{"parameters": n, "bytes": n}``, and
``{"predict": {"texts": [...]}}`` with ``{"probabilities": [[...], ...]}``, columns in the sorted
order of the labels. It is started once and fitted many times.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from fewfit.compare import Features, Method
from fewfit.errors import MissingExtraError, ModelError

HERE = Path(__file__).parent


@dataclass(eq=False)
class Peer(Method):
    """A method that runs in another interpreter, on the same samples.

    Its fit seconds include what it does with the texts: it has no frozen model to ask. Its memory
    is not traced. Nothing is kept of a fit but its size.
    """

    name: str
    traceable: ClassVar[bool] = False
    _process: subprocess.Popen[str] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        variable = f"FEWFIT_{self.name.upper()}_PYTHON"
        if variable not in os.environ:
            raise MissingExtraError(
                f"the peer {self.name!r} needs its own environment: name its interpreter in "
                f"${variable}; {self.name}_peer.py says what to install there"
            )
        self._command = [os.environ[variable], str(HERE / f"{self.name}_peer.py")]

    def key(self) -> str:
        return f"peer {self.name} " + (HERE / f"{self.name}_peer.py").read_text(encoding="utf-8")

    def fit(self, sample: Features, classes: NDArray[Any]) -> dict[str, int]:
        return self.call("fit", texts=sample.texts, labels=sample.y.tolist())

    def predict_proba(self, fitted: Any, test: Features) -> NDArray[Any]:
        answer = self.call("predict", texts=test.texts)
        return np.array(answer["probabilities"], dtype=np.float64)

    def arrays(self, fitted: dict[str, int]) -> dict[str, NDArray[Any]]:
        return {"everything": np.broadcast_to(np.uint8(0), fitted["bytes"])}

    def parameters(self, fitted: dict[str, int]) -> int:
        return fitted["parameters"]

    def call(self, what: str, **content: Any) -> dict[str, Any]:
        """Send a request and return the answer."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        to, answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        to.write(json.dumps({what: content}) + "\n")
        to.flush()
        line = answers.readline()
        if not line:
            code = self._process.wait()
            self.close()
            raise ModelError(f"the peer {self.name!r} ended with code {code} on {what}")
        return json.loads(line)

    def close(self) -> None:
        """End the other process; the next fit starts a new one."""
        if self._process is not None:
            with self._process as process:
                process.terminate()
            self._process = None
