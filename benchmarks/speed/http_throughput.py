"""How much of the throughput that a server's latency allows a remote model reaches.

``python -m benchmarks http_throughput`` starts a server that answers every request after 20 ms,
and asks it over 64 connections; the latency allows 64 / 0.02 s = 3,200 prompts a second. Beside
fewfit run, turn by turn, a client that does nothing but send prepared bytes and receive (what the
machine allows), and httpx2 in as many threads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks import RESULTS
from fewfit import Template, load_model

CONNECTIONS, LATENCY = 64, 0.020
ALLOWED = CONNECTIONS / LATENCY
TOP = {" good": -0.5, " bad": -1.5, " x": -3.0, " y": -4.0, " z": -5.0}
REPLY = {"model": "toy", "choices": [{"index": 0, "logprobs": {"top_logprobs": [TOP]}}]}


class Answering(asyncio.Protocol):
    """Reads requests, and writes the same reply to each after the latency."""

    body = json.dumps(REPLY).encode()
    reply = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return
        length = int(self.data[:end].lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(self.data) < end + 4 + length:
            return
        self.data = b""
        reply = self.reply % (len(self.body), self.body)
        asyncio.get_running_loop().call_later(LATENCY, self.transport.write, reply)  # pyright: ignore


async def serve() -> None:
    """Serve until killed; print the port first."""
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def fewfit_client(port: int) -> Callable[[int], None]:
    """What is measured: a remote model's own ``observe``."""
    model = load_model(f"openai:http://127.0.0.1:{port}?model=toy&connections={CONNECTIONS}")
    template = Template("{text} It was {mask}.")

    prompts = [template.render({"text": f"text number {i}"}) for i in range(20_000)]

    def run(n: int) -> None:
        answers = model.observe(prompts[:n], ["good", "bad"])
        assert (answers.status == 0).all()

    return run


def bare_client(port: int) -> Callable[[int], None]:
    """The least that a client can do: bytes out, bytes in."""
    body = json.dumps({"model": "toy", "prompt": "text number 1 It was"}).encode()
    request = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    size = len(Answering.reply % (len(Answering.body), Answering.body))

    def run(n: int) -> None:
        def work() -> None:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for _ in range(n // CONNECTIONS):
                    sock.sendall(request)
                    left = size
                    while left:
                        left -= len(sock.recv(left))

        threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def httpx2_client(port: int) -> Callable[[int], None]:
    """The same requests through httpx2."""
    import httpx2

    limits = httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    client = httpx2.Client(limits=limits, timeout=30, trust_env=False)
    url = f"http://127.0.0.1:{port}/v1/completions"
    body = {"model": "toy", "prompt": "text", "max_tokens": 1, "temperature": 0, "logprobs": 5}

    def run(n: int) -> None:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(lambda i: client.post(url, json=body).json(), range(n)))

    return run


def main(argv: Sequence[str] | None = None) -> None:
    """Run all clients turn by turn, and write medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--prompts", type=int, default=6400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    if options.serve:
        asyncio.run(serve())
        return
    n, rounds = options.prompts, options.rounds
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "http_throughput", "--serve"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        clients = {
            "bytes out, bytes in": bare_client(port),
            "fewfit": fewfit_client(port),
            "httpx2 in threads": httpx2_client(port),
        }
        rates: dict[str, list[float]] = {name: [] for name in clients}
        cpu: dict[str, list[float]] = {name: [] for name in clients}
        for run in clients.values():
            run(CONNECTIONS * 4)
        for _ in range(rounds):
            for name, run in clients.items():
                start, busy = time.perf_counter(), time.process_time()
                run(n)
                rates[name].append(n / (time.perf_counter() - start))
                cpu[name].append((time.process_time() - busy) / n)
    finally:
        process.kill()
        process.wait()
    results = {
        "allowed_per_second": ALLOWED,
        "connections": CONNECTIONS,
        "latency_seconds": LATENCY,
        "prompts": n,
        "rounds": rounds,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, server on the same machine",
        "load_average": os.getloadavg()[0],
        "clients": {
            name: {
                "per_second": statistics.median(rates[name]),
                "ratio": statistics.median(rates[name]) / ALLOWED,
                "best_ratio": max(rates[name]) / ALLOWED,
                "cpu_microseconds_per_prompt": 1e6 * statistics.median(cpu[name]),
            }
            for name in clients
        },
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "http_throughput.json").write_text(json.dumps(results, indent=2) + "\n")
    text = table(results)
    (RESULTS / "http_throughput.md").write_text(text)
    print(text)


def table(results: dict) -> str:
    """Render the results as Markdown."""
    lines = [
        "# Throughput over HTTP",
        "",
        f"{results['prompts']:,} prompts, {CONNECTIONS} connections, {1000 * LATENCY:.0f} ms of "
        f"latency: {ALLOWED:,.0f} prompts a second are allowed. Median of {results['rounds']} "
        f"rounds, turn by turn. {results['machine']}; load average {results['load_average']:.1f}.",
        "",
        "| client | prompts/s | of what the latency allows | best round | CPU µs/prompt |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, row in results["clients"].items():
        lines.append(
            f"| {name} | {row['per_second']:,.0f} | {row['ratio']:.2f} | {row['best_ratio']:.2f} | "
            f"{row['cpu_microseconds_per_prompt']:.0f} |"
        )
    fewfit, bare = (results["clients"][name] for name in ("fewfit", "bytes out, bytes in"))
    ratio = fewfit["per_second"] / bare["per_second"]
    lines += ["", f"fewfit reaches {ratio:.2f} of what the bare client does in the same run.", ""]
    return "\n".join(lines)
