"""The page in a browser, headless: make test-page."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fewfit.datasets import load_support_desk

CHROMIUM = os.environ.get("FEWFIT_CHROMIUM")
SHOTS = os.environ.get("FEWFIT_SHOTS")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="a browser: make test-page")

EVIL = "<img src=x onerror=window.hit=1>"
LOCAL = ("http://127.0.0.1:", "blob:http://127.0.0.1:")
SIZES = {"desktop": (1280, 900), "phone": (360, 740)}


class Server:
    """The page in a process of its own."""

    def __init__(self, workspace: Path, *options: str, **environment: str) -> None:
        self.workspace, self.options = workspace, options
        cache = {"FEWFIT_CACHE": str(workspace.parent / "cache")}
        self.environment = {**os.environ, **cache, **environment}
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "fewfit", "serve", str(self.workspace), *self.options]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)], env=self.environment, stderr=subprocess.DEVNULL
        )
        for _ in range(600):
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the server does not answer")

    def kill(self, how: int = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        self.process.wait(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = pytest.importorskip("playwright.sync_api")
    with driver.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose model is the embedded one, with a file of 400 mails, 60 with a label."""
    folder = tmp_path_factory.mktemp("workspace")
    texts, labels = load_support_desk()
    rows = [(texts[i * 37 % len(texts)], labels[i * 37 % len(texts)]) for i in range(400)]
    with (folder.parent / "mails.csv").open("w", newline="") as stream:
        write = csv.writer(stream, delimiter=";")
        write.writerow(["id", "text", "label"])
        write.writerows([i, text, y if i < 60 else ""] for i, (text, y) in enumerate(rows))
    found = Server(folder, "--allow-fit")
    yield found
    found.kill(signal.SIGTERM)


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A tab in which nothing fails, and which asks nobody but the server."""
    context = browser.new_context(accept_downloads=True, viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda r: r.url.startswith(LOCAL) or wrong.append(r.url))
    tab.on("console", lambda m: wrong.append(m.text) if "Security Policy" in m.text else None)
    tab.set_default_timeout(60_000)
    yield tab
    context.close()
    assert wrong == []


def shoot(tab: Any, name: str) -> None:
    """Keep pictures of a page, in light and dark, on a desk and on a phone, where asked for."""
    for size, (width, height) in SIZES.items():
        tab.set_viewport_size({"width": width, "height": height})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, (name, size)
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)
            assert tab.evaluate(FAINT) == [], (name, size, scheme)
            if SHOTS:
                path = Path(SHOTS) / f"{name}-{size}-{scheme}.png"
                tab.screenshot(path=path, full_page=True)
    tab.emulate_media(color_scheme="light")
    tab.set_viewport_size({"width": 1280, "height": 900})
    assert unnamed(tab) == []
    levels = [int(tag[1]) for tag in tab.evaluate(HEADINGS)]
    assert levels[:1] in ([1], [])
    assert all(b <= a + 1 for a, b in pairwise(levels)), levels


HEADINGS = "[...document.querySelectorAll('main :is(h1,h2,h3,h4)')].map((h) => h.tagName)"

FAINT = (Path(__file__).parent / "faint.js").read_text(encoding="utf-8")

ASKING = {"button", "link", "textbox", "combobox", "checkbox", "searchbox", "progressbar", "group"}


def unnamed(tab: Any) -> list[Any]:
    """Return what can be used, and has no name for those who do not see it."""
    session = tab.context.new_cdp_session(tab)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    used = [n for n in nodes if n.get("role", {}).get("value") in ASKING and not n.get("ignored")]
    assert len(used) > 1
    return [
        node["role"]["value"]
        for node in used
        if not node.get("name", {}).get("value") and node["role"]["value"] != "group"
    ]


def dropped(tab: Any, data: str) -> Any:
    """Return a file on its way into a page."""
    make = """(t) => {
        const data = new DataTransfer();
        data.items.add(new File([t], "mails.csv"));
        return data;
    }"""
    return tab.evaluate_handle(make, data)


def said(tab: Any) -> str:
    return tab.locator(".advice").inner_text()


def other(element: Any, text: str) -> None:
    """Wait until an element has another text."""
    for _ in range(600):
        if element.inner_text() != text:
            return
        time.sleep(0.05)
    raise AssertionError(f"still {text!r}")


def idle(tab: Any) -> None:
    """Wait until no fit runs."""
    tab.locator("progress").wait_for(state="hidden")


def test_from_a_file_to_a_classifier_by_keys(page, server, tmp_path):
    page.goto(server.url)
    data = (server.workspace.parent / "mails.csv").read_text("utf-8")
    page.locator(".drop").dispatch_event("drop", {"dataTransfer": dropped(page, data)})
    page.get_by_role("heading", name="mails.csv: 400 rows").wait_for()
    assert page.get_by_text("10 classes, 340 rows without a label").is_visible()
    assert page.get_by_label("The labels are in").input_value() == "2"
    shoot(page, "new")
    page.get_by_role("button", name="Create the task").click()
    page.get_by_role("heading", name="mails", exact=True).wait_for()

    # A fit that begins is found again by a reload, and can be cancelled there.
    page.get_by_role("button", name="Fit", exact=True).click()
    page.get_by_role("button", name="Cancel").wait_for()
    page.reload()
    page.get_by_role("button", name="Cancel").click()
    idle(page)
    assert "Cancelled" in said(page)
    page.get_by_role("button", name="Fit", exact=True).click()
    page.get_by_text("Accuracy to expect:").wait_for()
    idle(page)
    assert "60 labelled texts" in said(page)
    assert page.locator(".confusion tbody tr").count() == 10

    # Five labels by keys, with the focus where they are.
    box = page.get_by_role("group", name="Text to label")
    box.focus()
    given = []
    for key in "13579":
        text = page.locator("#to-label").inner_text()
        assert text not in given
        given.append(text)
        page.keyboard.press(key)
        page.wait_for_function(
            "(t) => document.querySelector('#to-label').innerText !== t", arg=text
        )
    page.get_by_text("65 labels, 335 texts without one").wait_for()
    idle(page)
    page.get_by_text("65 labelled texts").wait_for()
    page.keyboard.press("u")
    page.get_by_text("64 labels, 336 texts without one").wait_for()
    assert page.locator("#to-label").inner_text() == given[-1]
    page.keyboard.press("s")
    assert page.locator("#to-label").inner_text() != given[-1]
    page.get_by_label("Any text").fill("135us")  # no key of the page
    assert page.get_by_text("64 labels").count() == 1

    # One is corrected, among all.
    page.get_by_text("Search them, and correct any label").click()
    page.get_by_label("Search").fill(given[0][:60])
    row = page.locator("table.texts tbody tr", has_text=given[0])
    row.wait_for()
    old = row.get_by_role("combobox").locator("option:checked").inner_text()
    row.get_by_role("combobox").select_option(label="privacy" if old != "privacy" else "login")
    page.locator("progress").wait_for()
    idle(page)

    # A text is tried, live.
    page.get_by_label("Any text").fill("My parcel has not arrived, where is it?")
    page.locator(".told .bars li").first.wait_for()
    page.locator(".told li:first-child", has_text="delivery").wait_for()
    shoot(page, "task")

    # What is on the page is there again after a reload, and after a kill.
    before = [said(page), page.locator(".classes").inner_text()]
    page.reload()
    page.get_by_text("64 labels").wait_for()
    assert [said(page), page.locator(".classes").inner_text()] == before
    server.kill()
    box.focus()
    page.keyboard.press("1")
    page.get_by_role("alert").get_by_text("The server does not answer").wait_for()
    server.start()
    page.reload()
    page.get_by_text("64 labels").wait_for()
    assert [said(page), page.locator(".classes").inner_text()] == before

    # What is taken along works elsewhere.
    with page.expect_download() as found:
        page.get_by_role("button", name="Labels (CSV)").click()
    found.value.save_as(tmp_path / "mails.csv")
    rows = list(csv.DictReader((tmp_path / "mails.csv").read_text("utf-8-sig").splitlines()))
    assert list(rows[0]) == ["id", "text", "label"]
    assert sum(bool(row["label"]) for row in rows) == 64
    with page.expect_download() as found:
        page.get_by_role("button", name="Classifier (zip)").click()
    found.value.save_as(tmp_path / "mails.zip")
    zipfile.ZipFile(tmp_path / "mails.zip").extractall(tmp_path)
    code = page.get_by_label("Python").inner_text()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("['")


def test_pasted_markup_stays_text(page, server):
    page.goto(server.url)
    page.get_by_text("Or paste rows").click()
    rows = "\n".join(f"{EVIL} {i},{EVIL if i % 2 else 'plain'}" for i in range(8))
    page.get_by_label("Rows, with a first line").fill(f"text,label\n{rows}\n{EVIL} more,\n")
    page.get_by_role("button", name="Read these rows").click()
    page.get_by_label("Name of the task").fill("evil")
    page.get_by_role("button", name="Create the task").click()
    page.get_by_role("button", name="Fit", exact=True).click()
    page.get_by_text("8 labelled texts").wait_for()
    page.get_by_label("Any text").fill(EVIL)
    page.locator(".told .bars li").first.wait_for()
    page.get_by_text("Search them, and correct any label").click()
    page.locator("table.texts tbody tr").first.wait_for()
    assert page.locator(".choices button", has_text=EVIL).is_visible()
    assert page.locator("img").count() == 0
    assert page.evaluate("window.hit") is None
    with pytest.raises(Exception, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<b>x</b>'")
    shoot(page, "markup")


def test_without_a_label_and_by_keyboard_alone(page, server):
    page.goto(server.url)
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "To the content"
    page.get_by_text("Or paste rows").press("Enter")
    page.get_by_label("Rows, with a first line").fill(
        "body\nmy parcel is late\nmoney back\nhello\n"
    )
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="pasted.csv: 3 rows").wait_for()
    assert "pasted.csv" in page.locator(":focus").inner_text()
    page.get_by_label("Name of the task").fill("tiny")
    page.keyboard.press("Enter")
    page.get_by_label("Another class").wait_for()
    for name in ("shipping", "money"):
        page.get_by_label("Another class").fill(name)
        page.keyboard.press("Enter")
        page.get_by_label(f"Label words of {name}").wait_for()
    page.get_by_role("button", name="Fit", exact=True).press("Enter")
    box = page.get_by_role("group", name="Text to label")
    box.wait_for()
    assert page.locator(".advice:focus-within, .advice:focus").count() == 1
    for _ in range(9):
        page.keyboard.press("Tab")
        if box.evaluate("(e) => e === document.activeElement"):
            break
    page.keyboard.press("2")
    page.get_by_text("1 label, 2 texts without one").wait_for()
    page.get_by_label("Label words of money").fill("money, refund")
    page.keyboard.press("Enter")
    page.get_by_role("status").get_by_text("The classes are saved").wait_for()
    assert page.locator(":focus").get_attribute("aria-label") == "Label words of money"
    shoot(page, "tiny")
    page.get_by_text("Delete this task").press("Enter")
    page.get_by_label("To delete the task").fill("other")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("is not the name").wait_for()
    page.get_by_label("To delete the task").fill("tiny")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Your tasks").wait_for()
    assert page.get_by_role("link", name="tiny").count() == 0


def test_with_a_key_and_without_leave_to_fit(page, server, tmp_path):
    (tmp_path / "served").mkdir()
    done = [sys.executable, "-m", "fewfit", "fit", str(server.workspace.parent / "mails.csv")]
    command = [*done, "-o", str(tmp_path / "served" / "mails"), "--model", "fake"]
    subprocess.run(command, check=True, capture_output=True, env=server.environment)
    other = Server(tmp_path / "served", FEWFIT_API_KEY="secret" * 4)
    try:
        page.goto(other.url)
        page.get_by_role("dialog", name="API key").wait_for()
        page.get_by_label("Key", exact=True).fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("does not take this key").wait_for()
        page.get_by_label("Key", exact=True).fill("secret" * 4)
        shoot(page, "key")
        page.keyboard.press("Enter")
        page.get_by_text("--allow-fit").wait_for()
        assert page.get_by_role("heading", name="New task").count() == 0
        shoot(page, "off")
        page.get_by_role("link", name="mails").click()
        page.get_by_label("Any text").fill("Where is my parcel?")
        page.locator(".told .bars li").first.wait_for()
        page.reload()  # the key is asked for once
        page.get_by_label("Any text").wait_for()
        assert not page.get_by_role("dialog", name="API key").is_visible()
    finally:
        other.kill(signal.SIGTERM)
