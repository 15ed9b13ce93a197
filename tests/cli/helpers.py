"""What the tests of the command line share: how it is called, and small files."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

from click.testing import Result
from typer.testing import CliRunner

from fewfit.cli import app

TEXTS = ["good fun", "bad taste", "quite good", "so bad", "fine good", "bad bad"]
LABELS = ["pos", "neg", "pos", "neg", "pos", "neg"]
WORDS = ("--label", "neg=bad", "--label", "pos=good,fine")
CODES = {0, 2, 3, 4, 5, 6, 130}
"""The exit codes that the help names."""

_runner = CliRunner()


def run(*args: object, code: int | None = 0, input: str | bytes | None = None) -> Result:
    """Call the command line in this process, and check its exit code (None for any)."""
    result = _runner.invoke(app, [str(arg) for arg in args], input=input)
    shown = f"{args}\n{result.output}\n{result.exception!r}"
    assert code is None or result.exit_code == code, shown
    return result


def check_plain(result: Result) -> None:
    """No traceback, no repr of numpy, an exit code that the help names, errors on one line."""
    shown = result.output + repr(result.exception)
    assert result.exit_code in CODES, shown
    assert result.exception is None or isinstance(result.exception, SystemExit), shown
    assert not re.search(r"Traceback|\bnp\.|\barray\(|numpy|dtype=", result.output), shown
    errors = [line for line in result.stderr.splitlines() if line.startswith("fewfit: error")]
    assert len(errors) <= 1, shown
    if result.exit_code not in (0, 130) and "Usage" not in result.stderr:
        assert len(errors) == 1, shown


def csv_bytes(delimiter: str = ",", encoding: str = "utf-8", rows: list | None = None) -> bytes:
    """Return rows, by default the examples with a header, as CSV."""
    stream = io.StringIO()
    everything = rows or [("text", "label"), *zip(TEXTS, LABELS, strict=True)]
    csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerows(everything)
    return stream.getvalue().encode(encoding)


def write_xlsx(path: Path, rows: list[list[object]], *, sheets: int = 1) -> None:
    """Write a workbook whose first sheet has these rows: text inline, numbers as numbers."""
    lines = []
    for row in rows:
        cells = [
            f"<c><v>{value}</v></c>"
            if isinstance(value, int | float)
            else f'<c t="inlineStr"><is><t>{escape(str(value))}</t></is></c>'
            if value is not None
            else "<c/>"
            for value in row
        ]
        lines.append(f"<row>{''.join(cells)}</row>")
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    numbers = range(1, sheets + 1)
    sheet = f'<worksheet xmlns="{main}"><sheetData>{{}}</sheetData></worksheet>'
    listed = "".join(f'<sheet name="S{i}" sheetId="{i}" r:id="r{i}"/>' for i in numbers)
    related = "".join(
        f'<Relationship Id="r{i}" Type="{kind}/worksheet" Target="worksheets/sheet{i}.xml"/>'
        for i in numbers
    )
    with zipfile.ZipFile(path, "w") as book:
        book.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{package}/content-types"><Default Extension="xml" '
            'ContentType="application/xml"/></Types>',
        )
        book.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
            f'Type="{kind}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        book.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{main}" xmlns:r="{kind}"><sheets>{listed}</sheets></workbook>',
        )
        book.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{package}/relationships">{related}</Relationships>',
        )
        for i in numbers:
            book.writestr(
                f"xl/worksheets/sheet{i}.xml", sheet.format("".join(lines) if i == 1 else "")
            )
