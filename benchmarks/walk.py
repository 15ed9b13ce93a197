"""Nine jobs of a newcomer in a fresh environment, from the built wheel: what is typed and printed.

    python -m benchmarks walk [--extras excel] [--keep FOLDER] [--only NAME ...]

Builds the wheel, makes a virtual environment, installs the wheel with the extras and with what
``constraints.txt`` pins, and does the jobs there one after the other, each with a store of its own.
Writes ``results/walk.md``: the commands, their seconds, and what they printed. The data are the
messages below, those of ``fewfit.datasets``, and four of the benchmarks' sets.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from benchmarks import RESULTS
from benchmarks.tasks import data_folder, read_split

ROOT = Path(__file__).parents[1]
SHOWN = 34
"""Lines of a command's output that are kept."""

MAILS = {
    "Rechnung": (
        "Auf der Rechnung vom März steht ein falscher Betrag, bitte prüfen Sie das.",
        "Mir wurde der Monatsbeitrag zweimal abgebucht.",
        "Können Sie die Rechnung bitte auf unsere Firma ausstellen?",
        "Warum kostet das Abo plötzlich 12 € mehr?",
        "Ich möchte per Überweisung statt mit Karte zahlen.",
        "Die Mahnung verstehe ich nicht, ich habe längst bezahlt.",
        "I was charged twice for the same order.",
        "Please send the invoice to our accounting department.",
        "Why did my subscription get €5 more expensive?",
        "The refund has still not reached my bank account.",
        "Can I pay by bank transfer instead of card?",
        "The VAT on the bill looks wrong to me.",
    ),
    "Lieferung": (
        "Mein Paket ist seit zwei Wochen unterwegs und nicht angekommen.",
        "Der Bote hat das Paket beim falschen Nachbarn abgegeben.",
        "Können Sie die Lieferadresse noch ändern? Ich bin umgezogen.",
        "Die Sendungsnummer führt ins Leere.",
        "Es fehlt ein Teil der Bestellung in der Kiste.",
        "Wann wird der Schrank endlich geliefert?",
        "My parcel says delivered but it is not here.",
        "The courier left the box in the rain, everything is wet.",
        "Please ship it to my office instead.",
        "Tracking has not moved for ten days.",
        "One of the three items was missing from the box.",
        "When will the back-ordered lamp arrive?",
    ),
    "Technik": (
        "Die App stürzt beim Öffnen jedes Mal ab.",
        "Ich kann mich nicht mehr anmelden, das Passwort wird abgelehnt.",
        "Nach dem Update ist der Bildschirm schwarz.",
        "Das Gerät verbindet sich nicht mit dem WLAN.",
        "Die Suche liefert seit gestern keine Ergebnisse mehr.",
        "Der Drucker wird vom Programm nicht erkannt.",
        "The app crashes every time I open it.",
        "I cannot log in, it keeps rejecting my password.",
        "After the update the screen stays black.",
        "The device will not connect to my wifi.",
        "Search returns an error since yesterday.",
        "Uploading a photo freezes the whole page.",
    ),
}
"""Mails in German and English; of each language the last two of a class are for the test."""

PROGRAMS = {
    "save.py": """
import csv, pickle
from fewfit import FewShotClassifier
rows = list(csv.DictReader(open("questions.csv")))[:96]
clf = FewShotClassifier().fit([r["text"] for r in rows], [r["label"] for r in rows])
data = pickle.dumps(clf)
open("clf.pkl", "wb").write(data)
print(len(data), "bytes", clf.predict(["Who wrote it ?", "How many are there ?"]).tolist())
""",
    "read.py": """
import pickle
clf = pickle.load(open("clf.pkl", "rb"))
print(clf.predict(["Who wrote it ?", "How many are there ?"]).tolist())
""",
    "threads.py": """
import pickle, time
from concurrent.futures import ThreadPoolExecutor
import csv
clf = pickle.load(open("clf.pkl", "rb"))
texts = [r["text"] for r in csv.DictReader(open("questions-test.csv"))]
start = time.perf_counter()
with ThreadPoolExecutor(16) as pool:
    found = list(pool.map(lambda i: clf.predict_proba(texts[i : i + 40]), range(0, 400, 25)))
took = time.perf_counter() - start
alone = [clf.predict_proba(texts[i : i + 40]) for i in range(0, 400, 25)]
same = all(abs(a - b).max() < 1e-5 for a, b in zip(found, alone))
print(f"16 threads, {sum(map(len, found))} rows, {took:.1f} s, as one after the other: {same}")
""",
}


def write_csv(path: Path, header: Sequence[str], rows: Iterator[Sequence[str]] | Any) -> None:
    """Write what a spreadsheet would."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])


def write_workbook(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write the least workbook that a spreadsheet opens."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    cells = [
        "".join(f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>' for value in row)
        for row in rows
    ]
    lines = "".join(f"<row>{row}</row>" for row in cells)
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="xml" '
        'ContentType="application/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
        f'Type="{kind}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{kind}"><sheets>'
        '<sheet name="Export" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r1" Type="{kind}/worksheet" Target="worksheets/sheet1.xml"/>'
        "</Relationships>",
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{lines}</sheetData>'
        "</worksheet>",
    }
    with zipfile.ZipFile(path, "w") as book:
        for name, content in parts.items():
            book.writestr(name, content)


def make_data(folder: Path, data: Path) -> None:
    """Write the files of all jobs."""
    pick = random.Random(0)

    def rows(name: str, split: str) -> list[dict[str, Any]]:
        found = read_split(data, name, split)
        pick.shuffle(found)
        return found

    for name, of in (("mails", slice(0, 4)), ("new-mails", slice(4, 6))):
        mails = [(text, k) for k, own in MAILS.items() for text in (*own[:6][of], *own[6:][of])]
        lines = [
            "Betreff;Nachricht;Thema",
            *(f"Anfrage {i};{t};{k}" for i, (t, k) in enumerate(mails)),
        ]
        (folder / f"{name}.csv").write_bytes("\r\n".join(lines).encode("cp1252"))

    questions = [(row["text"], row["label"]) for row in rows("trec", "train")]
    shots = [
        pair
        for k in sorted({k for _, k in questions})
        for pair in [q for q in questions if q[1] == k][:16]
    ]
    test = [(row["text"], row["label"]) for row in rows("trec", "test")]
    write_workbook(
        folder / "export.xlsx", [("Text ", "Label"), *shots, ("", "number"), ("Why ?", "")]
    )
    write_csv(folder / "questions.csv", ("text", "label"), pick.sample(shots, len(shots)))
    write_csv(folder / "questions-pool.csv", ("text", "label"), questions[:2500])
    write_csv(folder / "questions-test.csv", ("text", "label"), test)

    for split, n in (("train", 300), ("test", 150)):
        pairs = [(row["text_a"], row["text_b"], row["label"]) for row in rows("snli", split)[:n]]
        write_csv(folder / f"pairs-{split}.csv", ("premise", "hypothesis", "label"), pairs)

    for split, per_class in (("train", 4), ("test", 2)):
        seen: dict[str, int] = {}
        kept = []
        for row in rows("clinc150", split):
            seen[row["label"]] = seen.get(row["label"], 0) + 1
            if seen[row["label"]] <= per_class:
                kept.append((row["text"], row["label"]))
        write_csv(folder / f"intents-{split}.csv", ("text", "label"), kept)

    single = [q for q in shots if q[1] in ("human", "location", "number")]
    both = [
        (f"{a[0]} {b[0]}", ";".join(sorted({a[1], b[1]})))
        for a, b in zip(single, pick.sample(single, len(single)), strict=True)
    ]
    pick.shuffle(both)
    write_csv(folder / "tags.csv", ("text", "labels"), both[:40])
    write_csv(folder / "tags-test.csv", ("text", "labels"), both[40:])

    texts = [row["text"] for name in ("trec", "clinc150") for row in rows(name, "train")]
    many = [(str(i), f"{pick.choice(texts)} ({i})") for i in range(20_000)]
    write_csv(folder / "many.csv", ("id", "text"), many)
    for name, text in PROGRAMS.items():
        (folder / name).write_text(text, encoding="utf-8")


JOBS: dict[str, Sequence[str]] = {
    "Mails in German and English, semicolons, cp1252": (
        "fewfit fit mails.csv -o mails/",
        "fewfit fit mails.csv --text-column nachricht --label-column thema -o mails/",
        "fewfit predict mails/ new-mails.csv -o sorted.csv",
        "fewfit evaluate mails/ new-mails.csv",
    ),
    "An Excel export": (
        "fewfit fit export.xlsx -o questions/",
        "fewfit evaluate questions/ questions-test.csv",
    ),
    "Pairs": (
        "fewfit fit pairs-train.csv --text-column premise --text-column hypothesis -o pairs/",
        "fewfit evaluate pairs/ pairs-test.csv",
    ),
    "Several labels per text": (
        "fewfit fit tags.csv --label-column labels --multi-label -o tags/",
        "fewfit evaluate tags/ tags-test.csv",
    ),
    "150 classes": (
        "fewfit fit intents-train.csv -o intents/",
        "fewfit evaluate intents/ intents-test.csv",
    ),
    "20,000 texts, killed and resumed": (
        "fewfit fit questions.csv -o questions/",
        "kill: fewfit predict questions/ many.csv -o many-labelled.csv",
        "fewfit predict questions/ many.csv -o many-labelled.csv",
        "wc -l many-labelled.csv",
    ),
    "A comparison, and its report on a phone": (
        "fewfit compare questions-pool.csv questions-test.csv --drop-overlap -o compared/",
        "phone: compared/report.html",
    ),
    "A pickle in another process": ("python save.py", "python read.py"),
    "Sixteen threads": ("python save.py", "python threads.py"),
}
"""What is typed. ``kill:`` is killed half-way, ``phone:`` is looked at 360 px wide."""


def run(command: str, folder: Path, path: str, cache: Path) -> tuple[float, str]:
    """Return the seconds that a command took and what it printed."""
    kill = command.startswith("kill: ")
    environment = {**os.environ, "PATH": path, "FEWFIT_CACHE": str(cache), "COLUMNS": "100"}
    environment.pop("PYTHONPATH", None)
    start = time.perf_counter()
    process = subprocess.Popen(
        command.removeprefix("kill: "),
        shell=True,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    written = folder / "many-labelled.csv"
    if kill:
        while process.poll() is None and (
            not written.exists() or written.read_bytes().count(b"\n") < 6000
        ):
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGKILL)
    printed = process.communicate()[0]
    took = time.perf_counter() - start
    if kill:
        rows = written.read_bytes().count(b"\n") - 1
        printed += f"(killed; {rows:,} rows were written)\n"
    elif process.returncode:
        printed += f"(exit code {process.returncode})\n"
    return took, printed


def phone(page: Path) -> str:
    """Return how wide a page is at 360 px, by a browser if there is one."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return "no browser here"
    frame = page.parent / "phone.html"
    frame.write_text(
        f'<iframe src="{page.name}" width="360" height="700"></iframe><p id="w"></p><script>'
        "onload = () => { w.textContent = document.querySelector('iframe')"
        ".contentDocument.documentElement.scrollWidth + ' px wide in a window of 360' }</script>",
        encoding="utf-8",
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    found = subprocess.run(
        [browser, *options, "--virtual-time-budget=5000", "--dump-dom", f"file://{frame}"],
        capture_output=True,
        text=True,
        check=False,
    )
    frame.unlink()
    return found.stdout.partition('<p id="w">')[2].partition("</p>")[0]


def install(folder: Path, extras: str) -> tuple[str, str]:
    """Return the search path of a fresh environment with the wheel, and what it took."""
    start = time.perf_counter()
    quiet = ["--quiet", "--disable-pip-version-check"]
    dist, venv = folder / "dist", folder / "venv"
    build = [sys.executable, "-m", "pip", "wheel", *quiet, "--no-deps", "-w", str(dist), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = dist.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    what = f"{wheel}[{extras}]" if extras else str(wheel)
    pins = ["--constraint", str(ROOT / "constraints.txt")]
    command = [str(venv / "bin" / "pip"), "install", *quiet, *pins, what]
    subprocess.run(command, check=True, capture_output=True)
    size = sum(file.lstat().st_size for file in venv.rglob("*") if file.is_file())
    named = f"fewfit[{extras}]" if extras else "fewfit"
    return f"{venv / 'bin'}:{os.environ['PATH']}", (
        f'`pip install "{named}"` from the wheel of {wheel.stat().st_size / 1e6:.1f} MB: '
        f"{size / 1e6:,.0f} MB on disk with pip, {time.perf_counter() - start:.0f} s with building."
    )


def report(name: str, done: Sequence[tuple[str, float, str]]) -> str:
    """Return a job as Markdown."""
    parts = [f"## {name}\n"]
    for command, took, printed in done:
        lines = printed.rstrip().splitlines()
        if len(lines) > SHOWN:
            cut = len(lines) - SHOWN
            lines = [*lines[: SHOWN // 2], f"… {cut} more lines …", *lines[-SHOWN // 2 :]]
        shown = "\n".join(line.rstrip() for line in ("$ " + command, *lines))
        parts.append(f"```\n{shown}\n```\n\n{took:.1f} s\n")
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    """Do the jobs and write what they printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--extras", default="excel")
    parser.add_argument("--keep", type=Path, help="a folder for the environment, used again")
    parser.add_argument("--only", nargs="*", default=list(JOBS), metavar="NAME")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / "installed.json"
        if not known.exists():
            known.write_text(json.dumps(install(folder, args.extras)))
        path, installed = json.loads(known.read_text())
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        make_data(work, args.data)
        parts, table = [], ["| job | commands | seconds |", "|---|---:|---:|"]
        for i, (name, commands) in enumerate(JOBS.items()):
            if not any(name.startswith(wanted) for wanted in args.only):
                continue
            done = []
            for command in commands:
                start = time.perf_counter()
                if command.startswith("phone: "):
                    printed = phone(work / command.removeprefix("phone: "))
                    done.append((command, time.perf_counter() - start, printed))
                else:
                    done.append((command, *run(command, work, path, folder / f"store{i}")))
            parts.append(report(name, done))
            print(parts[-1], flush=True)
            table.append(f"| {name} | {len(done)} | {sum(took for _, took, _ in done):.1f} |")
    about = f"{installed} Python {platform.python_version()}, {os.cpu_count()} cores"
    about += f", beside other programs: load {os.getloadavg()[2]:.0f}."
    text = "\n".join(["# Nine jobs of a newcomer", "", about, "", *table, "", *parts])
    if list(args.only) == list(JOBS):
        (RESULTS / "walk.md").write_text(text, encoding="utf-8")
