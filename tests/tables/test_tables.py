from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import os
import threading

import pytest

from fewfit.errors import InputError
from fewfit.tables import open_table
from tests.cli.helpers import LABELS, TEXTS, csv_bytes, run, write_xlsx

ROWS = [[text, label] for text, label in zip(TEXTS, LABELS, strict=True)]


def read(path, **options):
    said: list[str] = []
    table = open_table(str(path), say=said.append, wanted=["text", "label"], **options)
    rows = list(table.read())
    assert len(rows) == table.n
    assert list(table.read()) == rows  # and again, the same
    return table, rows, said


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-16-le", b""),
        ("utf-16-be", b""),
        ("utf-32-le", codecs.BOM_UTF32_LE),
        ("cp1252", b""),
    ],
)
def test_any_delimiter_in_any_encoding(tmp_path, delimiter, encoding, mark):
    rows = [["text", "label"], ["Größe, € 5; groß | naïve\ttab", "ä"], ['"so"\nbad', "b"]]
    (tmp_path / "a.csv").write_bytes(mark + csv_bytes(delimiter, encoding, rows))
    table, found, said = read(tmp_path / "a.csv")
    assert table.columns == ("text", "label")
    assert found == [(2, rows[1]), (3, rows[2])]
    usual = delimiter == "," and encoding == "utf-8"
    assert len(said) == (not usual)
    if not usual:
        assert (f"{delimiter!r}" in said[0]) == (delimiter != ",")
        assert ("--encoding" in said[0]) == (encoding != "utf-8")


def test_what_is_said_by_the_user_is_taken(tmp_path):
    (tmp_path / "a.csv").write_bytes("text\u00a6label\nпривет\u00a6x\n".encode("cp1251"))
    _, rows, said = read(tmp_path / "a.csv", delimiter="\u00a6", encoding="cp1251")
    assert rows == [(2, ["привет", "x"])]
    assert not said


def test_the_delimiter_is_the_one_with_which_the_columns_are_there(tmp_path):
    # With commas every line has three values, alike; with semicolons it has the columns.
    lines = ["a,b;text;label,c", "1,2;good;pos,3", "1,2;bad;neg,3"]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    table = open_table(str(tmp_path / "a.csv"), wanted=["text"])
    assert table.columns == ("a,b", "text", "label,c")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_one_stray_quote_is_said_with_its_line_and_not_a_column_that_is_missing(
    tmp_path, delimiter
):
    lines = ["id,text,label", "1,fine,neg", '2,"great" they said,pos', "3,so, so,neg"]
    (tmp_path / "a.csv").write_text("\n".join(lines).replace(",", delimiter))
    with pytest.raises(InputError, match="after line 2: ") as error:
        open_table(str(tmp_path / "a.csv"), wanted=["text"])
    assert "quotes in it are doubled" in str(error.value)
    assert ("--format tsv" in str(error.value)) == (delimiter == "\t")


def test_what_can_be_read_goes_before_what_cannot(tmp_path):
    (tmp_path / "a.csv").write_text('a,b;c\nx,"y" z;2\n')
    assert open_table(str(tmp_path / "a.csv")).columns == ("a,b", "c")


@pytest.mark.parametrize("delimiter", [",", ";", "|"])
def test_a_blank_before_a_quote_is_no_part_of_the_value(tmp_path, delimiter):
    lines = ["id, text, label", *(f"{i}, none, x" for i in range(60)), '60, "hi, ""you""; |", x']
    (tmp_path / "a.csv").write_text(
        "\n".join([*lines, '61, "ho", y']).replace(", ", f"{delimiter} ")
    )
    _, rows, _ = read(tmp_path / "a.csv")
    hi = "hi, ".replace(", ", f"{delimiter} ")
    assert [values for _, values in rows[-2:]] == [
        ["60", f'{hi}"you"; |', "x"],
        ["61", "ho", "y"],
    ]


@pytest.mark.parametrize(
    ("delimiter", "lines", "texts"),
    [
        ("|", ["1|text", '2| "Great" film', '3| "Awful"'], [' "Great" film', ' "Awful"']),
        (",", ["text,1", "ok,2", ' "Hello" you,3', 'so, "4"'], ["ok", ' "Hello" you', "so"]),
    ],
)
def test_quotes_with_text_behind_them_are_text(tmp_path, delimiter, lines, texts):
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines))
    table, rows, _ = read(path)
    place = list(table.columns).index("text")
    assert [values[place] for _, values in rows] == texts


def test_blanks_of_a_value_stay_where_quotes_do_not_say_otherwise(tmp_path):
    written = csv_bytes(rows=[["text", "label"], [' "a", "b" ', " x"], ['so, "', "y, "], ["", '"']])
    (tmp_path / "a.csv").write_bytes(written)
    _, rows, _ = read(tmp_path / "a.csv")
    assert [v for _, v in rows] == [[' "a", "b" ', " x"], ['so, "', "y, "], ["", '"']]
    (tmp_path / "a.csv").write_text("text,label\n so, x\n")
    assert read(tmp_path / "a.csv")[1] == [(2, [" so", " x"])]


@pytest.mark.parametrize("given", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-8", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_name_whichever_encoding_is_named(tmp_path, given):
    data = '"text","label"\n"ä","x"\n'
    data = data if given == "utf-16" else f"\ufeff{data}"
    (tmp_path / "a.csv").write_bytes(data.encode(given))
    table, rows, _ = read(tmp_path / "a.csv", encoding=given)
    assert (table.columns, rows) == (("text", "label"), [(2, ["ä", "x"])])


def test_one_column_may_hold_every_delimiter(tmp_path):
    (tmp_path / "a.csv").write_text('text\nwell, yes; no\t|\n"quoted, ""so"""\n')
    table = open_table(str(tmp_path / "a.csv"))
    assert [values for _, values in table.read()] == [["well, yes; no\t|"], ['quoted, "so"']]


def test_excel_may_say_which_delimiter(tmp_path):
    (tmp_path / "a.csv").write_text("sep=;\ntext;label\ngood;pos\n")
    table, rows, _ = read(tmp_path / "a.csv")
    assert table.columns == ("text", "label")
    assert rows == [(3, ["good", "pos"])]


def test_a_quote_is_text_in_tsv(tmp_path):
    lines = 'text\tlabel\n" it starts\tpos\nand ends "\tneg\n5" screen\tpos\nplain\tneg\n'
    (tmp_path / "a.tsv").write_text(lines)
    _, rows, _ = read(tmp_path / "a.tsv")
    assert rows == [
        (2, ['" it starts', "pos"]),
        (3, ['and ends "', "neg"]),
        (4, ['5" screen', "pos"]),
        (5, ["plain", "neg"]),
    ]
    (tmp_path / "b.tsv").write_text('"text"\t"label"\n"a ""b""\tc"\t"pos"\n')
    _, rows, _ = read(tmp_path / "b.tsv")
    assert rows == [(2, ['a "b"\tc', "pos"])]  # quotes around every name are no part of them


def test_quotes_that_a_spreadsheet_writes_into_tsv_are_no_text(tmp_path):
    values = ['he said "hi"', "two\nlines", "a\ttab", '5" screen', "plain", '""']
    for kept in (values, values[:1], values[1:2], values[2:3]):
        with (tmp_path / "a.tsv").open("w", newline="") as stream:
            writer = csv.writer(stream, delimiter="\t")  # pandas and Excel quote the same
            writer.writerows([["text", "label"], *([value, "pos"] for value in kept)])
        _, rows, _ = read(tmp_path / "a.tsv")
        assert [row for _, row in rows] == [[value, "pos"] for value in kept]


@pytest.mark.parametrize("text", ['"great"', '"so ""it"" goes" he said', '"', 'a ""b""'])
def test_a_quote_that_need_not_stand_around_a_value_is_text_in_tsv(tmp_path, text):
    (tmp_path / "a.tsv").write_text(f'text\tlabel\n{text}\tpos\n"x\tneg\n')
    _, rows, _ = read(tmp_path / "a.tsv")
    assert [row for _, row in rows] == [[text, "pos"], ['"x', "neg"]]


def test_a_ragged_tsv_is_told_what_helps_it(tmp_path):
    (tmp_path / "a.tsv").write_text('text\tlabel\ntwo\nlines\tpos\n"x" y\tneg\n')
    with pytest.raises(InputError, match="line 2 has 1 values for 2 columns") as error:
        read(tmp_path / "a.tsv")
    assert "a line break" in str(error.value)
    assert "--delimiter" not in str(error.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows_are_named_by_the_line_they_begin_on(tmp_path, end):
    (tmp_path / "a.csv").write_bytes(f'text,label{end}"two{end}lines",a{end}{end}good,b'.encode())
    _, rows, _ = read(tmp_path / "a.csv")
    assert [number for number, _ in rows] == [2, 5]


@pytest.mark.parametrize(
    "content",
    [
        '[{"text": "good", "label": 1}, {"label": 2, "text": "bad", "more": [1]}]',
        '{"data": [{"text": "good", "label": 1}, {"label": 2, "text": "bad", "more": [1]}]}',
        '{"text": "good", "label": 1}\n\n{"label": 2, "text": "bad", "more": [1]}\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_is_an_array_or_lines(tmp_path, content, encoding):
    (tmp_path / "a.json").write_bytes(content.encode(encoding))
    table, rows, _ = read(tmp_path / "a.json")
    assert table.columns == ("text", "label", "more")
    assert [list(values) for _, values in rows] == [["good", 1, None], ["bad", 2, [1]]]
    assert rows[1][0] == (3 if "\n" in content else 2)


def test_excel_and_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("python_calamine")
    from pyarrow import parquet

    sheet = [[None, None], ["text", "label"], ["good", 1], [None, None], [42, 2.5]]
    write_xlsx(tmp_path / "a.xlsx", sheet, sheets=2)
    table, rows, said = read(tmp_path / "a.xlsx")
    assert table.columns == ("text", "label")
    assert rows == [(3, ["good", 1]), (5, [42, 2.5])]
    assert table.where(3) == "row 3"
    assert "first of 2 sheets" in said[0]
    parquet.write_table(pyarrow.table({"text": TEXTS, "label": LABELS}), tmp_path / "a.parquet")
    _, rows, _ = read(tmp_path / "a.parquet")
    assert [values for _, values in rows] == ROWS
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    assert [values for _, values in read(tmp_path / "b.parquet.gz")[1]] == ROWS


def refused(path):
    try:
        open_table(str(path))
    except InputError as error:
        return str(error)
    return None


def test_what_is_there_comes_before_what_its_name_tells(tmp_path):
    """A folder, and a name that is mistyped, were told to add --format."""
    (tmp_path / "mails").mkdir()
    assert "is a folder; name a file in it" in str(refused(tmp_path / "mails"))
    assert "No such file" in str(refused(tmp_path / "male"))


def packed():
    rows = [[f"{text} {i}", label] for i in range(400) for text, label in ROWS]
    data = csv_bytes(rows=[["text", "label"], *rows])
    return {
        "a.csv.gz": gzip.compress(data),
        "a.csv.bz2": bz2.compress(data),
        "a.csv.xz": lzma.compress(data),
    }


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.bz2", "a.csv.xz"])
def test_what_is_packed_is_unpacked_and_what_is_cut_short_is_said(tmp_path, name):
    data = packed()[name]
    (tmp_path / name).write_bytes(data)
    assert read(tmp_path / name)[0].n == 2400
    # Every way of cutting it, and a byte changed anywhere: read as it was, or refused by name.
    for cut in [*range(0, len(data), max(len(data) // 40, 1)), len(data) - 1]:
        (tmp_path / name).write_bytes(data[:cut])
        with pytest.raises(InputError, match=r"cut short|does not begin|no rows"):
            open_table(str(tmp_path / name))
        (tmp_path / name).write_bytes(data[:cut] + bytes([data[cut] ^ 0x55]) + data[cut + 1 :])
        refusal = refused(tmp_path / name)
        assert refusal is None or name in refusal


def test_a_date_that_python_does_not_have_is_no_traceback(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for kind in (pyarrow.timestamp("ms"), pyarrow.duration("ms")):
        dates = pyarrow.array([0, 10**17], kind)
        parquet.write_table(
            pyarrow.table({"text": ["a", "b"], "when": dates}), tmp_path / "a.parquet"
        )
        with pytest.raises(InputError, match="a date or a time that is out of range"):
            read(tmp_path / "a.parquet")


def test_a_value_that_python_cannot_hold_is_no_damage_and_is_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    ends, data = pyarrow.py_buffer(bytes([0, 0, 0, 0, 2, 0, 0, 0])), pyarrow.py_buffer(b"\xff\xfe")
    columns = {
        "broken": pyarrow.Array.from_buffers(pyarrow.string(), 1, [None, ends, data]),
        "when": pyarrow.array([1], pyarrow.timestamp("us", tz="Mars/Olympus")),
    }
    for name, column in columns.items():
        parquet.write_table(pyarrow.table({"text": ["a"], name: column}), tmp_path / "a.parquet")
        said = refused(tmp_path / "a.parquet")
        assert f"column '{name}' holds, behind row 0, what cannot be read" in str(said)
        assert "damaged" not in str(said)


@pytest.mark.parametrize("kind", ["parquet", "xlsx", "json", "jsonl"])
def test_what_is_cut_short_is_an_input_error(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    records = [{"text": text, "label": label} for text, label in ROWS]
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(records), path)
    elif kind == "xlsx":
        pytest.importorskip("python_calamine")
        write_xlsx(path, [["text", "label"], *ROWS])
    elif kind == "json":
        path.write_text(json.dumps(records))
    else:
        path.write_text("\n".join(map(json.dumps, records)))
    data = path.read_bytes()
    for cut in range(0, len(data) - 1, max(len(data) // 60, 1)):
        path.write_bytes(data[:cut])
        refusal = refused(path)
        if refusal is None:  # lines may be cut between two of them
            assert kind == "jsonl"
            assert open_table(str(path)).n < len(ROWS)
        else:
            assert str(path) in refusal


def test_a_pipe_is_read_again(monkeypatch):
    class Piped:
        closed = False
        buffer = io.BytesIO(gzip.compress(csv_bytes(";")))

    monkeypatch.setattr("sys.stdin", Piped)
    _, rows, said = read("-")
    assert [values for _, values in rows] == ROWS
    assert "standard input" in said[0]


@pytest.mark.parametrize(
    ("content", "n"),
    [
        (b'{"text": "a"}\n{"text": "b"}\n', 2),
        (b'\xef\xbb\xbf\n[{"text": "a"},\n {"text": "b"}]', 2),
        (gzip.compress(b'{"rows": [{"text": "a"}, {"text": "b"}, {"text": "c"}]}'), 3),
        (b"{text},text\n1,a\n", 1),
        (b"[text],text\n1,a\n", 1),
    ],
    ids=["lines", "array", "packed", "csv-brace", "csv-bracket"],  # a packed file holds its time
)
def test_a_pipe_is_json_where_it_begins_so(monkeypatch, content, n):
    class Piped:
        closed = False
        buffer = io.BytesIO(content)

    monkeypatch.setattr("sys.stdin", Piped)
    table = open_table("-")
    assert "text" in table.columns
    assert [row[table.columns.index("text")] for _, row in table.read()] == ["a", "b", "c"][:n]


def test_a_pipe_by_name_is_read_again(tmp_path):
    path = tmp_path / "a.csv"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=[csv_bytes(";")])
    writer.start()
    _, rows, _ = read(path)
    writer.join()
    assert [values for _, values in rows] == ROWS


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", b"text;label\ngood;pos;x\n", {}, "line 2 has 3 values for 2 columns"),
        ("a.csv", b"text;label\ngood;pos;x\n", {}, "delimiter ';'"),
        ("a.csv", b'text,label\n"good,pos\n', {}, "after line 1"),
        ("a.csv", b'text,label\n"good" so,pos\n', {}, "quotes in it are doubled"),
        ("a.csv", b"PK\x03\x04zip", {}, "add --format excel"),
        ("a.csv", b"PAR1zip", {}, "add --format parquet"),
        ("a.csv", b"text\n" + "ok ä ö ü ß é ".encode() + b"\xff\n", {}, "UTF-8 elsewhere"),
        ("a.csv", "text\nПривет мир\n".encode("cp1251"), {}, "cp1251, shift_jis"),
        ("a.csv", "text\n日本語\n".encode("shift_jis"), {}, "cp1251, shift_jis"),
        ("a.csv", b"text\n\x81\x8d hello there\n", {}, "does not look like cp1252"),
        ("a.csv", b"\xff\xfet\x00e\x00x\x00t\x00\n\x00a", {}, "cut short"),
        ("a.csv", b"text\n\xff\n", {"encoding": "utf-8"}, "not utf-8 at byte 5"),
        ("a.csv", b"text\nx\n", {"encoding": "utf8x"}, "did you mean 'utf8'"),
        (
            "a.csv",
            b"text\nx\n",
            {"encoding": "base64"},
            "--encoding: 'base64' is no encoding of text",
        ),
        ("a.csv", b"text\nx\n", {"encoding": "\0"}, "--encoding"),
        ("a.csv", b"text\nx\n", {"delimiter": ";;"}, "one character"),
        ("a.csv", b"text\nx\n", {"delimiter": '"'}, "one character"),
        ("a.tsv", b"text\nx\n", {"delimiter": ";"}, "is tsv, not CSV"),
        ("a.csv", b"text\nx\n", {"format": "xml"}, "'xml' is not one of"),
        ("a.csv", b"text\nx\n", {"format": "exel"}, "did you mean 'excel'"),
        ("a.json", b"{}", {}, "expected an array of objects"),
        ("a.json", b'{"a": {"b": 1}}', {"format": "json"}, "expected an array of objects"),
        ("a.json", b"[1]", {}, "item 1 is not a JSON object"),
        ("a.json", b"[" * 100_000, {}, "nested too deeply"),
        ("a.jsonl", b'{"a":' * 100_000, {}, "nested too deeply"),
        ("a.jsonl", b'{"text": "a", "label": "x", "label": "y"}', {}, "'label' stands twice"),
        ("a.json", b'[{"text": "a", "text": "b"}]', {}, "'text' stands twice"),
        ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}", {}, "cannot be read"),
        ("a.mails", b"text\nx\n", {}, "add --format"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, name, content, options, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        open_table(str(tmp_path / name), **options)
    assert message in str(error.value)


def test_a_million_rows_are_not_held(tmp_path):
    """Parts come as they are read; what is read is a small share of the file."""
    path = tmp_path / "a.csv"
    path.write_text("text\n" + "some words of a text\n" * 50_000)
    table = open_table(str(path))
    assert table.n == 50_000
    parts = table.chunks(100)
    assert len(next(parts)) == 100
    parts.close()


@pytest.mark.parametrize(
    "args",
    [["--text-column", "MESSAGE"], ["--text-column", " message "], ["--text-column", "message"]],
)
def test_columns_are_found_without_blanks_and_case(tmp_path, args):
    rows = [["Message ", " Label"], *ROWS]
    (tmp_path / "a.csv").write_bytes(csv_bytes(rows=rows))
    run("fit", tmp_path / "a.csv", "-o", tmp_path / "t", "--model", "fake", *args)


def test_columns_of_one_name_have_their_places_and_none_is_the_one(tmp_path):
    rows = [["text", "note", "", "label", "note", "", "note (column 2)"]]
    rows += [
        [text, "x", "", label, "y", "", "z"] for text, label in zip(TEXTS, LABELS, strict=True)
    ]
    (tmp_path / "a.csv").write_bytes(csv_bytes(rows=rows))
    table, found, said = read(tmp_path / "a.csv")
    names = ["note (column 2)'", "note (column 5)"]
    assert [*table.columns] == ["text", names[0], "", "label", names[1], "", "note (column 2)"]
    assert [values for _, values in found] == rows[1:]
    assert said == [
        f"{tmp_path / 'a.csv'}: columns of the same name are read as {', '.join(map(repr, names))}"
    ]
    words = ("--label", "pos=good", "--label", "neg=bad")
    fit = ("fit", tmp_path / "a.csv", "-o", tmp_path / "t", "--model", "fake", *words)
    run(*fit)
    labelled = run("predict", tmp_path / "t", tmp_path / "a.csv").stdout
    assert next(csv.reader(labelled.splitlines()))[:7] == [*table.columns]
    refusal = run(*fit, "--label-column", "note", code=2).stderr
    assert "no column 'note'" in refusal
    assert "note (column 5)" in refusal
    run(*fit, "--text-column", "text", "--text-column", "note (column 5)")
    wide = [f"c{i % 8000}" for i in range(16_000)]
    (tmp_path / "a.csv").write_bytes(csv_bytes(rows=[["text", *wide], ["x"] * 16_001]))
    _, _, said = read(tmp_path / "a.csv")
    assert said[0].endswith("'c3 (column 5)', and 15,996 more")


def test_a_parquet_file_with_columns_of_one_name_is_read_by_their_places(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    two = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], ["text", "text"])
    parquet.write_table(two, tmp_path / "a.parquet")
    table, found, _ = read(tmp_path / "a.parquet")
    assert table.columns == ("text (column 1)", "text (column 2)")
    assert found == [(1, ["a", "b"])]


def test_a_column_that_can_be_two_is_refused(tmp_path):
    rows = [["Text ", "TEXT", "label"], *([t, t, y] for t, y in ROWS)]
    (tmp_path / "a.csv").write_bytes(csv_bytes(rows=rows))
    args = ["fit", tmp_path / "a.csv", "-o", tmp_path / "t", "--model", "fake", "--text-column"]
    assert "can be 'Text ' or 'TEXT'" in run(*args, "text", code=2).stderr
    run(*args, "TEXT")
    assert "did you mean 'label'" in run(*args, "lable", code=2).stderr
