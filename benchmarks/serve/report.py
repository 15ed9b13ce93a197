"""What RESULTS.md says of the server under load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fewfit.markdown import markdown_table


def section(path: Path) -> str:
    """The section of RESULTS.md."""
    content = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        "\n## The server under load\n",
        "`OMP_NUM_THREADS=1 python -m benchmarks serve_load --locust PYTHON`\n",
        f"`fewfit serve` on {content['machine']}, which the client and other programs share (each "
        "part says the load average behind it), over the loopback; no store, the embedded model on "
        "one thread. What its OpenAPI page promises: `make test-schema`.\n",
    ]
    parts = {
        "users": _users,
        "overload": _overload,
        "tasks": _tasks,
        "endurance": _endurance,
        "reload": _reload,
    }
    lines += [parts[name](content[name]) for name in parts if name in content]
    return "\n".join(lines)


def _users(found: dict[str, Any]) -> str:
    header = ["users", "requests/s", "p50 ms", "p99 ms", "replies", "server CPU s"]
    rows = [
        [
            n,
            f"{row['per_second']:,.0f}",
            f"{row['p50_ms']:.0f}",
            f"{row['p99_ms']:.0f}",
            _statuses(row),
            f"{row['server_cpu_seconds']:.1f}",
        ]
        for n, row in found["rows"].items()
    ]
    return (
        f"Users of {found['client']}, one text of 13 words a request, one of 20 tasks, ten "
        f"seconds. Who gets 429 comes again when it says. Load average {found['load_average']}.\n\n"
        f"{markdown_table(header, rows)}\n"
    )


def _overload(found: dict[str, Any]) -> str:
    header = [
        *("", "requests/s", "rejected", "of them with Retry-After", "429 p50 / p99 ms"),
        *("answered/s", "accepted p50 / p99 ms", "alone p50 / p99 ms", "p99, times"),
    ]
    rows = []
    for name in ("default queue", "queue of 2"):
        row = found[name]
        no, yes, one = row["rejected"], row["accepted"], row["unloaded"]
        rejected = yes["statuses"].get("429", 0)
        rows.append(
            [
                name,
                f"{row['rate']:.0f}",
                f"{100 * no['share']:.0f} %",
                f"{no['with_retry_after'] / max(rejected, 1):.0%}",
                f"{no['p50_ms']:.0f} / {no['p99_ms']:.0f}",
                f"{yes['per_second']:.0f}",
                f"{yes['p50_ms']:.0f} / {yes['p99_ms']:.0f}",
                f"{one['p50_ms']:.0f} / {one['p99_ms']:.0f}",
                f"{row['ratio_p99']:.1f}",
            ]
        )
    return (
        "Ten times the requests that one user after the other gets answered, of texts of 221 "
        f"words, for ten seconds. Load average {found['load_average']}.\n\n"
        f"{markdown_table(header, rows)}\n"
    )


def _tasks(found: dict[str, Any]) -> str:
    own, cpu = found["p50_ms"], found["cpu_ms"]
    return (
        f"{found['tasks']:,} tasks on one model, and one, in two servers, {found['requests']:,} "
        f"texts, each asked of both, one after the other: {own['many']:.2f} ms and "
        f"{own['one']:.2f} ms (medians; {found['ratio']:.3f} times, the median of the ratios), "
        f"processor time of a request {cpu['many']:.2f} and {cpu['one']:.2f} ms "
        f"({cpu['many'] / cpu['one']:.3f} times); {found['more_mb']:.0f} MB more memory. Load "
        f"average {found['load_average']}.\n"
    )


def _endurance(found: dict[str, Any]) -> str:
    first, last = found["memory_mb"][0], found["memory_mb"][-1]
    return (
        f"{found['requests']:,} requests of a toy model in {found['seconds']:.0f} s: "
        f"{first[1]:.0f} MB after {first[0]:,}, {last[1]:.0f} MB after {last[0]:,}; "
        f"{found['grown_mb_from_a_fifth_on']:+.1f} MB from a fifth on.\n"
    )


def _reload(found: dict[str, Any]) -> str:
    return (
        f"{found['reloads']} reloads with replaced artifacts while ten users ask: replies "
        f"{_statuses(found)}, p99 {found['p99_ms']:.0f} ms.\n"
    )


def _statuses(row: dict[str, Any]) -> str:
    named = {"0": "none"}
    return ", ".join(f"{n:,} of {named.get(key, key)}" for key, n in row["statuses"].items())
