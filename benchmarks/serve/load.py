"""How the server does under load: users, too many of them, many tasks, many requests, reloads.

    OMP_NUM_THREADS=1 python -m benchmarks serve_load [SCENARIO ...] [--locust PYTHON]

``fewfit serve`` in a process of its own, asked over the loopback, with no store, so that each text
is read by the embedded model; all bounded in count and time. PYTHON is that of an environment with
locust, which then asks in the place of the client in ``client.py`` in the table of users. Each
scenario that is run writes its part of ``results/serve_load.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import platform
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import RESULTS
from benchmarks.serve.client import Connections, Told, closed, open_loop, request
from benchmarks.serve.server import PREDICT, Server, make_tasks, messages

OUTPUT = RESULTS / "serve_load.json"
HERE = Path(__file__).parent


def asked(tasks: Sequence[str], texts: Sequence[str]) -> Iterator[bytes]:
    """Yield requests without end, one text and one task each, in turn."""
    for i in count():
        body = {"texts": [texts[i % len(texts)]], "tasks": [tasks[i % len(tasks)]]}
        yield request(PREDICT, body)


def figures(told: Told) -> dict[str, Any]:
    """Return what is kept of a load."""
    return {
        "p50_ms": round(told.percentile(50), 2),
        "p99_ms": round(told.percentile(99), 2),
        "per_second": round(told.per_second(), 1),
        "statuses": {str(status): n for status, n in sorted(told.counts().items())},
        "wrong": told.wrong[:3],
    }


def users(folder: Path, python: str | None) -> dict[str, Any]:
    """1, 10 and 100 users, each with one text after the other; ten seconds each."""
    make_tasks(folder / "tasks", 20)
    texts = messages(50_000)
    rows = {}
    with Server(folder / "tasks") as server:
        warm(server)
        for n in (1, 10, 100):
            before = server.cpu_seconds()
            if python is None:
                rows[str(n)] = figures(ask(server, asked(TASKS, texts), users=n, seconds=10))
            else:
                rows[str(n)] = locust(python, server.port, n, folder / f"users-{n}")
            rows[str(n)]["server_cpu_seconds"] = round(server.cpu_seconds() - before, 1)
    return {"client": "locust" if python else "asyncio", "rows": rows}


def overload(folder: Path) -> dict[str, Any]:
    """Ten times the requests that it can answer, of long texts, which take the model its time.

    With the queue as it is by default, and with one in which a single text waits: an answer is as
    late as the queue is long.
    """
    make_tasks(folder / "tasks", 20)
    return {
        "default queue": _overload(folder / "tasks", ()),
        "queue of 2": _overload(folder / "tasks", ("--max-queue", "2")),
    }


def _overload(folder: Path, options: Sequence[str]) -> dict[str, Any]:
    texts = messages(20_000, words=220)
    with Server(folder, options) as server:
        warm(server)
        unloaded = ask(server, asked(TASKS, texts), users=1, seconds=10)
        capacity = unloaded.per_second()
        told = asyncio.run(
            open_loop(server.port, asked(TASKS, texts[9000:]), rate=10 * capacity, seconds=10)
        )
        after = ask(server, asked(TASKS, texts[4000:]), users=1, seconds=3)
    counts = told.counts()
    return {
        "unloaded": figures(unloaded),
        "rate": round(10 * capacity, 1),
        "accepted": figures(told),
        "rejected": {
            "share": round(counts.get(429, 0) / sum(counts.values()), 3),
            "with_retry_after": told.retry_after,
            "p50_ms": round(told.percentile(50, 429), 2),
            "p99_ms": round(told.percentile(99, 429), 2),
        },
        "after": figures(after),
        "ratio_p99": round(told.percentile(99) / unloaded.percentile(99), 2),
    }


def tasks(folder: Path, n: int = 1000, requests: int = 1500) -> dict[str, Any]:
    """One task or a thousand on one model: each text is asked of both servers, in turn."""
    names = make_tasks(folder / "many", n)
    make_tasks(folder / "one", 1)
    texts = messages(requests + 100)
    with Server(folder / "one") as one, Server(folder / "many") as many:
        servers = {"one": one, "many": many}
        asking = {"one": asked(names[:1], texts), "many": asked(names, texts)}
        for server in servers.values():
            warm(server)
        before = {which: server.cpu_seconds() for which, server in servers.items()}
        told = asyncio.run(_in_turn(servers, asking, requests))
        cpu = {which: server.cpu_seconds() - before[which] for which, server in servers.items()}
        memory = {which: server.memory_mb() for which, server in servers.items()}
    seconds = {which: own.seconds[200] for which, own in told.items()}
    assert not any(own.wrong for own in told.values()), told
    pairs = zip(seconds["many"], seconds["one"], strict=True)
    return {
        "tasks": n,
        "requests": requests,
        "p50_ms": {which: round(1000 * median(own), 3) for which, own in seconds.items()},
        "ratio": round(median(m / o for m, o in pairs), 3),
        "cpu_ms": {which: round(1000 * own / requests, 3) for which, own in cpu.items()},
        "memory_mb": {which: round(mb, 1) for which, mb in memory.items()},
        "more_mb": round(memory["many"] - memory["one"], 1),
    }


async def _in_turn(
    servers: dict[str, Server], asking: dict[str, Iterator[bytes]], requests: int
) -> dict[str, Told]:
    told = {which: Told() for which in servers}
    own = {which: Connections(server.port, told[which]) for which, server in servers.items()}
    for i in range(requests):
        for which in list(servers)[:: 1 if i % 2 else -1]:
            await own[which].ask(next(asking[which]))
    for one in own.values():
        await one.close()
    return told


def endurance(folder: Path, n: int = 100_000, parts: int = 10) -> dict[str, Any]:
    """Many cheap requests: what memory does."""
    make_tasks(folder / "tasks", 20, model="fake")
    rows = []
    with Server(folder / "tasks") as server:
        warm(server)
        requests = asked(TASKS, messages(5000))
        begun = time.perf_counter()
        for i in range(parts):
            told = ask(server, take(requests, n // parts), users=8)
            assert told.counts() == {200: n // parts}, (told.counts(), told.wrong[:3])
            rows.append([(i + 1) * n // parts, round(server.memory_mb(), 1)])
        wall = time.perf_counter() - begun
    late = [mb for done, mb in rows if done > n // 5]
    return {
        "requests": n,
        "seconds": round(wall, 1),
        "memory_mb": rows,
        "grown_mb_from_a_fifth_on": round(late[-1] - late[0], 1),
    }


def reload(folder: Path, times: int = 20) -> dict[str, Any]:
    """Artifacts are replaced, taken away and put back while ten users ask; none may notice."""
    make_tasks(folder / "tasks", 20)
    make_tasks(folder / "other", 20, distinct=10)
    done: list[int] = []
    with Server(folder / "tasks") as server:
        warm(server)

        def replace() -> None:
            for i in range(times):
                name = f"task-{10 + i % 10:04d}"
                new, old = folder / f"new-{i}", folder / f"old-{i}"
                shutil.copytree(folder / "other" / f"task-{i % 20:04d}", new)
                (folder / "tasks" / name).rename(old)
                new.rename(folder / "tasks" / name)
                asyncio.run(closed(server.port, [request("/v1/reload", None)], users=1))
                done.append(i)
                time.sleep(0.3)

        thread = threading.Thread(target=replace)
        thread.start()
        told = ask(server, asked(TASKS, messages(50_000)), users=10, seconds=8, check=is_answer)
        thread.join()
    return {"reloads": len(done), **figures(told)}


TASKS = [f"task-{i:04d}" for i in range(20)]

SCENARIOS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "overload": overload,
    "tasks": tasks,
    "endurance": endurance,
    "reload": reload,
}


def ask(server: Server, requests: Any, **options: Any) -> Told:
    """Run closed users."""
    return asyncio.run(closed(server.port, requests, **options))


def take(requests: Iterator[bytes], n: int) -> list[bytes]:
    """Return the next n requests."""
    return [next(requests) for _ in range(n)]


def warm(server: Server) -> None:
    """Let the model be loaded, and its buffers be what they will be."""
    told = ask(server, take(asked(TASKS[:1], messages(100, words=30)), 100), users=1)
    assert not told.wrong, told.wrong


def is_answer(status: int, body: bytes) -> str | None:
    """Say what is wrong with an answer to one text and one task."""
    return None if status == 200 else f"HTTP {status}: {body[:200]!r}"


def locust(python: str, port: int, n: int, prefix: Path) -> dict[str, Any]:
    """Let locust ask with n users for ten seconds."""
    command = [python, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--headless"]
    command += ["-u", str(n), "-r", str(n), "-t", "10s", "--host", f"http://127.0.0.1:{port}"]
    command += ["--csv", str(prefix), "--only-summary", "--stop-timeout", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    with Path(f"{prefix}_stats.csv").open(encoding="utf-8") as stream:
        rows = {row["Name"]: row for row in csv.DictReader(stream)}
    row, busy = rows["answered"], rows.get("busy", {"Request Count": "0"})
    statuses = {
        "200": int(row["Request Count"]) - int(row["Failure Count"]),
        "429": int(busy["Request Count"]),
        "other": int(row["Failure Count"]),
    }
    return {
        "p50_ms": float(row["50%"]),
        "p99_ms": float(row["99%"]),
        "per_second": round(float(row["Requests/s"]), 1),
        "statuses": {status: n for status, n in statuses.items() if n},
        "wrong": [] if done.returncode == 0 else [done.stderr[-300:]],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    parser.add_argument("--locust", metavar="PYTHON", help="of an environment with locust")
    options = parser.parse_args(argv)
    own = {"users": lambda folder: users(folder, options.locust), **SCENARIOS}
    if unknown := set(options.scenarios) - set(own):
        parser.error(f"{sorted(unknown)} are not among {list(own)}")
    content = json.loads(OUTPUT.read_text(encoding="utf-8")) if OUTPUT.exists() else {}
    content["machine"] = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    for name in options.scenarios or own:
        with tempfile.TemporaryDirectory() as folder:
            content[name] = {
                **own[name](Path(folder)),
                "load_average": round(os.getloadavg()[0], 1),
            }
        print(name, json.dumps(content[name]), flush=True)
        OUTPUT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
