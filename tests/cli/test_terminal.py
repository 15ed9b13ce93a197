"""Tables on a terminal: its width, its colours, nothing lost; Markdown elsewhere."""

from __future__ import annotations

import io
import os
import pty
import re
import struct
import subprocess
import sys
from fcntl import ioctl
from termios import TIOCSWINSZ

import pytest
from rich.cells import cell_len
from rich.console import Console

from fewfit.cli.terminal import print_blocks, show
from fewfit.markdown import Table

COSTS = Table(
    ["16 shots", *(f"column {i}" for i in range(9))],
    [["offset-regression", *(f"{i * 1111:,}" for i in range(9))], ["dect", *["0.1 *"] * 9]],
)
TEXTS = Table(
    ["line", "label", "text"],
    [["7", "a[bold]", "one two three " * 9], ["8", "b", "überall 日本語のテキスト 👍 x" * 3]],
    numbers=False,
)


def printed(*blocks, width=80, colours=False) -> str:
    stream = io.StringIO()
    system = "standard" if colours else None
    console = Console(file=stream, width=width, force_terminal=colours, color_system=system)
    print_blocks(console, blocks)
    return stream.getvalue()


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 200])
def test_nothing_is_wider_than_the_terminal_and_nothing_is_lost(width):
    out = printed("Some words to read. " * 9, COSTS, TEXTS, width=width)
    assert max(map(cell_len, out.splitlines())) <= width
    for i in range(9):
        assert f"column {i}" in out
        assert re.search(rf"\b{i * 1111:,}\b", out)
    assert out.count("three") == 9
    assert "a[bold]" in out


def test_a_label_gives_a_terminal_no_commands(capsys):
    label = "\x1b]0;mine\x07 \x9bred\x7f\r"
    table = Table(["class", label], [[label, "1"]])
    show(label, table)
    out = capsys.readouterr().out + printed(label, table, width=200)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out)
    assert out.count(r"\u001b]0;mine\u0007 \u009bred\u007f\u000d") == 6


def test_columns_that_do_not_fit_stand_below_their_method():
    assert printed(COSTS, width=200).count("offset-regression") == 1
    narrow = printed(COSTS, width=60)
    assert narrow.count("offset-regression") == narrow.count("16 shots") > 1
    for line in narrow.splitlines():
        assert not re.search(r"column$|^\s*\d$", line.strip())  # no cell is broken


def test_what_is_best_is_bold_and_markup_is_text():
    out = printed(COSTS, TEXTS, "[red]x[/red]", width=200, colours=True)
    assert re.search(r"\x1b\[1m *0\.1 \*\x1b\[0m", out)
    assert "a[bold]" in out
    assert "[red]x[/red]" in out


def test_elsewhere_it_is_markdown(capsys):
    show("Words.", COSTS)
    assert capsys.readouterr().out == f"Words.\n\n{COSTS}\n"


def on_a_terminal(*command: str, columns: int) -> str:
    """Run a command with a terminal of this width for its standard output."""
    master, slave = pty.openpty()
    ioctl(slave, TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-m", "fewfit", *command],
        stdout=slave,
        stderr=subprocess.PIPE,
        env=environment | {"TERM": "xterm-256color"},
    ):
        os.close(slave)
        parts = []
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            parts.append(part)
    os.close(master)
    return b"".join(parts).decode()


def test_a_real_terminal_gets_its_width():
    out = on_a_terminal("methods", "--for", "calibration", columns=72)
    assert "\x1b[1m" in out
    plain = re.sub(r"\x1b\[[\d;]*m", "", out).replace("\r", "")
    assert "| method" not in plain
    assert "contextual" in plain
    assert max(map(cell_len, plain.splitlines())) <= 72


def test_the_library_and_its_version_know_no_terminal():
    code = (
        "import sys, fewfit, fewfit.cli.app, fewfit.cli.terminal; "
        "print(sorted({'rich', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_bar_in_a_cell_is_escaped_in_markdown_alone():
    table = Table(["class", "rows"], [["a|b", "1"], ["plain", "2"]])
    assert str(table).splitlines()[2:] == ["| a\\|b  |    1 |", "| plain |    2 |"]
    assert "a|b" in printed(table)
