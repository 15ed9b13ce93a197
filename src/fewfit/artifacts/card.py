"""The model card: what an artifact says about itself to a person, and to a hub of models.

It is made from the manifest alone, so that it says nothing that the artifact does not hold, and it
is never read again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fewfit.errors import printable

if TYPE_CHECKING:
    from fewfit.artifacts.schema import ExpectedEntry, Manifest

_LONGEST = 300  # characters of a value in a table
_PINNED = re.compile(r"(?:hf|encoder):([\w.-]+(?:/[\w.-]+)?)@")
_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def card_of(manifest: Manifest, tuned: Mapping[str, Any] | None = None) -> bytes:
    """Return the card of a fitted classifier, Markdown with a head of YAML.

    `tuned` is the manifest of the tuned model, where its files lie in the artifact.
    """
    spec, identity = manifest.model_spec, manifest.model_identity
    what = "A small decoder on a frozen language model, fitted with fewfit. The frozen model is not"
    if tuned is not None:
        spec, identity = tuned["base_spec"], tuned["base_identity"]
        what = (
            "A small decoder on a language model with a small tuned part, fitted with fewfit. Both "
            "are in this folder. The frozen model is not"
        )
    several = manifest.decoder.name == "multi-label"
    kind = "MultiLabelClassifier" if several else "FewShotClassifier"
    facts = {
        "frozen model": code(spec or "one that only code can make"),
        **({} if tuned is None else {"tuned by": _with_options(tuned["method"], tuned["options"])}),
        "decoder": _with_options(manifest.decoder.name, manifest.decoder.parameters),
        "calibration": code(manifest.calibration.name),
        "labelled examples": str(manifest.n_examples),
        **_expected(manifest.expected),
        "fewfit": manifest.fewfit_version,
    }
    rows = []
    counts = manifest.counts or ["" for _ in manifest.labels]
    for (name, words), count in zip(manifest.labels, counts, strict=True):
        asked = [w if isinstance(w, str) else w[0] for w in words]
        rows.append([code(str(name)), ", ".join(map(code, asked)), str(count)])
    header = ["label" if several else "class", "asked as", "examples"]
    if several:
        rows = [[name, count] for name, _, count in rows]
        header.remove("asked as")
    parts = [
        f"# Text classifier with {len(rows)} {'labels' if several else 'classes'}",
        f"{what} in this folder; it is opened by its name, and has to be the very same.",
        table(["", ""], [[name, value] for name, value in facts.items()]),
        "How each text is asked about:",
        "\n\n".join(block(view.template) for view in manifest.template),
        table(header, rows),
        load_lines(kind, spec),
    ]
    if transforms := [view.transform for view in manifest.template if view.transform]:
        shown = ", ".join(code(json.dumps(item, ensure_ascii=False)) for item in transforms)
        parts.append(f"Asked through a transform: {shown}.")
    if any(view.in_context for view in manifest.template):
        parts.append("The prompt shows labelled examples, whose texts are in `manifest.json`.")
    return page(hub_name(spec, identity), parts)


def load_lines(kind: str, spec: str | None) -> str:
    """Return how the folder is loaded; `spec` is the name of the model, None where it has none."""
    named = "model=..." if spec is None else f"model={json.dumps(printable(spec))}"
    return (
        "Load it with `pip install fewfit`:\n\n"
        "```python\n"
        f"from fewfit import {kind}\n\n"
        f'clf = {kind}.from_pretrained("FOLDER or OWNER/NAME")\n'
        'clf.predict(["a new text"])\n'
        "```\n\n"
        "or `fewfit predict FOLDER new.csv -o labelled.csv`. Nothing is fetched and no server is "
        "asked that you have not named: if the frozen model is not on your machine, name it, "
        f"{code(named)}."
    )


def page(base_model: str | None, parts: Sequence[str]) -> bytes:
    """Put the parts of a card under its head."""
    head: dict[str, Any] = {
        "library_name": "fewfit",
        "pipeline_tag": "text-classification",
        "tags": ["fewfit", "few-shot", "text-classification"],
    }
    if base_model is not None:
        head["base_model"] = base_model
    lines = [f"{name}: {json.dumps(value)}" for name, value in head.items()]  # JSON is YAML
    text = "\n".join(["---", *lines, "---", ""]) + "\n" + "\n\n".join(parts) + "\n"
    return text.encode("utf-8", "backslashreplace")


def hub_name(spec: str | None, identity: Mapping[str, str]) -> str | None:
    """Return the name that the frozen model has on the hub; None for a folder or a server."""
    pinned = _PINNED.match(spec or "")
    if pinned is not None:
        return pinned[1]
    name = identity.get("name", "")
    return name if spec is not None and ":" not in spec and _NAME.fullmatch(name) else None


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def code(text: str) -> str:
    """Return a text as code, on one line and in a cell: nothing in it is markup."""
    line = printable(text)
    line = line if len(line) <= _LONGEST else line[:_LONGEST] + "…"
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line.replace('|', chr(92) + '|')}{pad}{fence}" if line else ""


def block(text: str) -> str:
    """Return a text of any lines as a block of code."""
    return "\n".join(f"    {printable(line)}" for line in text.splitlines() or [""])


def _with_options(name: str, parameters: Mapping[str, Any]) -> str:
    given = ", ".join(f"{key}={value!r}" for key, value in parameters.items())
    return f"{code(name)} {code(given)}" if given else code(name)


def _expected(found: ExpectedEntry | None) -> dict[str, str]:
    if found is None:
        return {}
    if found.accuracy is None:
        return {"accuracy to expect": f"not estimated: {printable(found.reason)}"}
    high = f"; that may be too high: {printable(found.reason)}" if found.reason else ""
    return {
        "accuracy to expect": f"{found.accuracy:.2f} (95 % interval {found.low:.2f} to "
        f"{found.high:.2f}), cross-validated on {found.n} labelled examples{high}"
    }
