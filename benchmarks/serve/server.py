"""A server to be measured: artifacts in a folder, ``fewfit serve`` in a process of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import fewfit
from fewfit import FewShotClassifier
from fewfit.datasets import load_support_desk
from fewfit.errors import ModelError

PREDICT = "/v1/predict"


def messages(n: int, words: int = 12) -> list[str]:
    """Return n different texts of about so many words."""
    own = " ".join(load_support_desk()[0]).split()
    return [f"{i} " + " ".join(own[(7 * i + j) % len(own)] for j in range(words)) for i in range(n)]


def make_tasks(folder: Path, n: int, model: str = "embedded", distinct: int = 20) -> list[str]:
    """Write n artifacts, fitted on different examples where they are the first `distinct`."""
    texts, labels = load_support_desk()
    store = folder.parent / f"{folder.name}.sqlite"
    names = [f"task-{i:04d}" for i in range(n)]
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        if i < distinct:
            own = range(i % 4, len(texts), 5 + i % 3)
            classifier = FewShotClassifier(model, store=store)
            classifier.fit([texts[j] for j in own], [labels[j] for j in own])
            classifier.save(folder / name)
        else:
            shutil.copytree(folder / names[i % distinct], folder / name)
    return names


class Server:
    """``fewfit serve``, until the block ends.

    Parameters
    ----------
    folder : path
        With the artifacts.
    options : sequence of str
        Further options of the command.
    """

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        self._log = folder.parent / f"serve-{self.port}.log"
        self._command = [
            *(sys.executable, "-m", "fewfit", "serve", str(folder)),
            *("--port", str(self.port), *options),
        ]

    def __enter__(self) -> Self:
        tree = str(Path(fewfit.__file__).parents[1])
        own = {**os.environ, "PYTHONPATH": tree, "FEWFIT_CACHE": str(self._log.parent / "cache")}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=own)
        begun = time.monotonic()
        while time.monotonic() - begun < 120 and self._process.poll() is None:
            try:
                self.get("/health/ready")
                return self
            except OSError:
                time.sleep(0.05)
        code = self._process.poll()
        self._process.kill()
        said = self._log.read_text()[-2000:]
        raise ModelError(f"the server did not start (exit status {code}): {said}")

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()

    def get(self, path: str) -> Any:
        """Return the body at a path."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://127.0.0.1:{self.port}{path}", timeout=10) as reply:
            return reply.read()

    def memory_mb(self) -> float:
        """Return what the process holds in memory, of it what it shares with nobody and files."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def cpu_seconds(self) -> float:
        """Return the processor time that the process has taken."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
