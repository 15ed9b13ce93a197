"""All methods in one table, made from what each declares beside its own code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from inspect import Parameter, getdoc, signature
from typing import Any, NamedTuple

from fewfit.analysis import ANALYSES
from fewfit.calibration import CALIBRATIONS
from fewfit.decoders import DECODERS, MultiLabel
from fewfit.errors import InputError, MissingExtraError
from fewfit.markdown import NONE, Table
from fewfit.prompts import VERBALIZERS, VIEWS
from fewfit.searchers import SEARCHERS, search_options
from fewfit.tuning import ENTRIES, METHODS, load


class Method(NamedTuple):
    """One row of the table.

    Attributes
    ----------
    name : str
        As it is given to ``--decoder``, ``--calibration``, ``--method`` and in Python.
    kind : str
        A key of :data:`TABLES`, "tuning" for a method of ``fewfit tune``, or "adapter" for what
        such a method trains.
    room : str
        The file that holds it.
    requires : tuple of str
        What the model must give.
    queries : str
        Queries per example.
    labels : str
        Labels needed.
    source : str
        Author, year, arXiv id; empty where it is common knowledge.
    note : str
        What else its paper takes.
    """

    name: str
    kind: str
    room: str
    requires: tuple[str, ...]
    queries: str
    labels: str
    source: str
    note: str = ""


TABLES: dict[str, Mapping[str, Any]] = {
    "calibration": CALIBRATIONS,
    "view": VIEWS,
    "verbalizer": VERBALIZERS,
    "decoder": DECODERS,
    "multi-label decoder": {"multi-label": MultiLabel},
    "searcher": SEARCHERS,
    "analysis": ANALYSES,
}
"""Kind -> the fixed tables of the rooms."""


FIRST: dict[str, str] = {
    "offset-regression": "labels, from one of each class on: what fit does if nothing is named",
    "zero-shot": "no labels yet: the model's own scores, calibrated",
    "multi-label": "several labels per text",
    "linear-probe": "classes that have no word",
    "dect": "labels, and no regression: prototypes beside the model's scores",
    "in-context": "a language model that is shown examples in each prompt",
    "prompt-search": "a better question, with queries to spend",
    "t-few": "the model's weights, and minutes: trained by fewfit tune",
}
"""What most people need -> what one has then."""


def list_methods() -> list[Method]:
    """Return every method, by kind and then by name."""
    found = [
        Method(
            name=name,
            kind=kind,
            room=item.__module__.removeprefix("fewfit.").replace(".", "/") + ".py",
            requires=tuple(sorted(item.requires)),
            queries=item.queries_per_example,
            labels=item.labels_needed,
            source=item.reference,
            note=_note(item),
        )
        for kind, table in TABLES.items()
        for name, item in sorted(table.items())
    ]
    return [*found, *(_tuned(name) for name in sorted(METHODS))]


def _tuned(name: str) -> Method:
    """A line of the table that needs no torch; what is installed is asked itself."""
    entry = ENTRIES.get(name)
    if entry is None:
        kind = METHODS[name]
        room, reference, labels = kind.__module__, kind.source, kind.labels_needed
        return Method(name, "tuning", room, ("gradients",), "1", labels, reference)
    room = f"tuning/{entry.where.partition(':')[0].replace('.', '/')}"
    return Method(name, "tuning", f"{room}.py", entry.needs, "1", entry.labels, entry.reference)


def _note(item: Any) -> str:
    own = getattr(item, "own_calibration", None)
    return f"its paper calibrates by {own!r}: {_name_of(item)}+{own}" if own else ""


def _name_of(decoder: Any) -> str:
    return next(name for name, kind in DECODERS.items() if kind is decoder)


ALIASES: dict[str, tuple[str, ...]] = {
    "AdaBoost": ("prompt-boosting",),
    "Approximated Prompt Tuning": ("apt",),
    "BBT": ("black-box-tuning",),
    "BC": ("batch",),
    "BDPL": ("prompt-search",),
    "batch calibration": ("batch",),
    "Black-box Discrete Prompt Learning": ("prompt-search",),
    "CC": ("contextual",),
    "Composable Sparse Fine-Tuning": ("lt-sft",),
    "Conjugate Prompting": ("conjugate",),
    "Context-aware Prompt Tuning": ("cpt",),
    "contextual calibration": ("contextual",),
    "DC": ("domain-context",),
    "DCPMI": ("pmi",),
    "Decoder Tuning": ("dect", "ratio"),
    "Decomposed Prompt Tuning": ("dept",),
    "default": ("offset-regression",),
    "domain-context calibration": ("domain-context",),
    "Dually Sparsity-Embedded Efficient Tuning": ("dsee",),
    "Efficient Prompt Tuning": ("ept",),
    "FISH mask": ("fish",),
    "focal loss": ("focal",),
    "Half Fine-Tuning": ("hft",),
    "Houlsby adapter": ("series-adapter",),
    "ICL": ("in-context",),
    "in-context learning": ("in-context",),
    "Instance-Aware Prompt Tuning": ("iapt",),
    "Instruction-Aware Prompt Tuning": ("iapt",),
    "iPET": ("ipet", "pet"),
    "kNN-Prompting": ("knn-prompting",),
    "Knowledgeable Prompt-tuning": ("probable-words",),
    "KPT": ("probable-words",),
    "Ladder Side-Tuning": ("ladder",),
    "Lite Self-Training": ("list",),
    "logistic regression": ("linear-probe", "offset-regression"),
    "lottery ticket": ("lt-sft",),
    "low-rank adaptation": ("lora",),
    "LST": ("ladder",),
    "MAM adapter": ("mam",),
    "Multi-Prompting Decoder": ("mpd", "neighbour-words"),
    "nearest centroid": ("nearest-mean",),
    "P-tuning": ("prefix-tuning",),
    "P-tuning v2": ("prefix-tuning",),
    "Pattern-Exploiting Training": ("pet",),
    "PMI-DC": ("pmi",),
    "PoT": ("panda",),
    "Prompt Tuning with Model Tuning": ("promot",),
    "Prompt Tuned Embedding Classification": ("ptec", "multi-label", "trie"),
    "PromptBoosting": ("prompt-boosting",),
    "Prototypical networks": ("nearest-mean",),
    "ProtoNet": ("nearest-mean",),
    "ProtoVerb": ("protoverb",),
    "PTEC": ("ptec", "multi-label", "trie"),
    "RIFF": ("paraphrase", "paraphrase-mean"),
    "RLPrompt": ("policy-network",),
    "Scalable Weight Reparametrization": ("swr",),
    "soft prompt": ("prompt-tuning",),
    "SciPrompt": ("retrieved-words", "soft-verbalizer"),
    "TFew": ("t-few",),
    "token distribution shift": ("token-shift",),
    "Unsupervised Prompt Learning": ("unsupervised-prompts",),
    "UPL": ("unsupervised-prompts",),
    "URIAL": ("urial-prefix", "token-shift"),
}
"""Name of a paper or system -> the methods that come from it, where they have another name here."""

NOT_HELD: dict[str, str] = {
    "CAFT": "Concept-Aware Fine-Tuning, arXiv 2506.07833",
    "cDPO": "critical tokens by contrastive estimation, arXiv 2411.19943",
    "CRaSh": "Clustering, Removing, Sharing, EMNLP 2023",
    "GOT-D": "Gradients of Optimal Transport for Data selection, arXiv 2405.02774",
    "ICV": "In-Context Vectors, arXiv 2311.06668",
    "LAST": "Low-rank Attention Side-Tuning, arXiv 2402.04009",
    "LeMo": "contextual token sparsity, arXiv 2501.09767",
    "LeTI": "Learning from Textual Interactions, arXiv 2305.10314",
    "LoSA": "Low-rank Side Adaptation, arXiv 2402.02887",
    "MetaST": "Meta Self-Training, arXiv 2010.03680",
    "MFT": "Masked Thought fine-tuning, arXiv 2403.02178",
    "OTR": "One-Token Rollout, arXiv 2509.26313",
    "P-tuning v1": "a prompt that a small network writes, arXiv 2103.10385",
    "PVP": "Pre-trained Visual Parameter-efficient tuning, arXiv 2304.13639",
    "Q-Tuning": "joint pruning of samples and tokens, arXiv 2509.23873",
    "SetFit": "contrastive tuning of the whole encoder, arXiv 2209.11055",
    "ssToken": "self-modulated token selection, arXiv 2510.18250",
    "SynQT": "Synthesis, Query, Tuning beside a ViT, arXiv 2407.06964",
    "TL-Training": "training on the features of a task, arXiv 2412.15495",
    "TuCo": "Tuning Contribution, arXiv 2506.23423",
    "UPET": "Uncertainty-aware self-training, arXiv 2310.13022",
    "VideoREPA": "Token Relation Distillation, arXiv 2505.23656",
}
"""Papers and systems whose methods are not here, so that nothing alike is offered instead."""


_PART = 4
"""Letters that are enough to be a part of a name."""


def find_methods(name: str) -> list[Method]:
    """Return the methods of a name, or of that of a paper, a system, an author or an arXiv id.

    Case, blanks, hyphens and underscores do not matter. Where it is none, the methods whose name
    it is a part of: "adapter".

    Raises
    ------
    InputError
        If there is none; the message names what is near, or says of a paper that is known that its
        method is not here.
    """
    everything, wanted = list_methods(), _folded(name)
    known = {_folded(method.name): {method.name} for method in everything}
    for alias, names in ALIASES.items():
        known.setdefault(_folded(alias), set()).update(names)
    found = [method for method in everything if method.name in known.get(wanted, ())]
    if not found:  # an author's name, or an arXiv id
        found = [m for m in everything if wanted in {_folded(w) for w in m.source.split()}]
    if not found:
        for other, what in NOT_HELD.items():
            title, number = what.partition(",")[0], what.split()[-1]
            if wanted in map(_folded, (other, title, number)):
                raise InputError(f"method: {other} ({what}) is not among the methods of fewfit")
    if not found and len(wanted) >= _PART:
        found = [m for m in everything if wanted in _folded(m.name)]
    if not found:
        spelled = {_folded(n): n for n in [*ALIASES, *(method.name for method in everything)]}
        near = [spelled[n] for n in get_close_matches(wanted, list(spelled), 1)]
        hint = f"did you mean {near[0]!r}?" if near else "'fewfit methods' lists them all"
        raise InputError(f"method: {name!r} is not known; {hint}")
    return found


def summary_of(method: Method) -> str:
    """Return what a method does, in a sentence; empty for what is tuned, without torch."""
    item = _item(method)
    lines = (getdoc(item) or "").partition("\n\n")[0].splitlines() if item else []
    return " ".join(lines)


def _item(method: Method) -> Any:
    if method.kind != "tuning":
        return TABLES.get(method.kind, {}).get(method.name)
    try:
        return load(method.name)
    except MissingExtraError:
        return None


_PARAMETERS = re.compile(
    r"^Parameters\n-+\n(.*?)(?:\n\n\w[^\n]*\n-+\n|\Z)", re.DOTALL | re.MULTILINE
)
_ENTRY = re.compile(r"^(\w[\w, ]*?) : [^\n]*((?:\n+[ ]+[^\n]*)*)", re.MULTILINE)

_USES = {
    "calibration": "fewfit fit --calibration {}",
    "decoder": "fewfit fit --decoder {}",
    "multi-label decoder": "fewfit fit --multi-label",
    "searcher": "fewfit search FILE --method {}",
    "tuning": "fewfit tune --method {}",
}


COMMANDS = {
    "urial-prefix": "fewfit generate FILE --prompt urial",
    "token-shift": "fewfit analyse token-shift BASE ALIGNED FILE",
    "retrieved-words": "fewfit words FILE",
    "trie": "fewfit fit FILE --taxonomy FILE",
    "conjugate": "fewfit fit FILE --transform NAME",
}
"""What is neither decoder nor calibration, and has a command of its own."""


def use_of(method: Method) -> str:
    """Return how one comes to use it: a command, or where it is in Python."""
    if method.kind in _USES:
        return _USES[method.kind].format(method.name)
    if method.name in COMMANDS:
        return COMMANDS[method.name]
    name = _item(method).__name__
    return f"from fewfit.{method.room.partition('/')[0]} import {name}"


def options_of(method: Method) -> dict[str, Any]:
    """Return the parameters of a method that have a default, with it."""
    if method.kind == "searcher":
        return search_options(method.name)
    item = _item(method)
    if item is None:
        return {}
    kind: Any = item  # a name of its own, which the type checker does not narrow
    own: dict[str, Any] = {f.name: f for f in fields(kind)} if is_dataclass(kind) else {}
    found = {p.name: p.default for p in signature(item).parameters.values()}
    for name, option in own.items():
        if option.init and option.default_factory is not MISSING:
            found[name] = option.default_factory()
    return {name: value for name, value in found.items() if value is not Parameter.empty}


def meanings_of(method: Method) -> dict[str, str]:
    """Return what each option of a method means, from its numpydoc; what says nothing is empty."""
    said: dict[str, str] = {}
    item = _item(method)
    for kind in item.__mro__ if isinstance(item, type) else (item,):
        section = _PARAMETERS.search(getdoc(kind) or "")
        entries = _ENTRY.findall(section.group(1)) if section else []
        for names, text in entries:
            for name in names.split(", "):
                said.setdefault(name, " ".join(text.split()))
    return {name: said.get(name, "") for name in options_of(method)}


def options_table(method: Method) -> Table:
    """Return the options of a method, their defaults and what they mean."""
    meaning = meanings_of(method)
    rows = [
        (f"`{name}`", f"`{value}`", meaning[name].replace("``", "`"))
        for name, value in options_of(method).items()
    ]
    return Table(("option", "default", "meaning"), rows, numbers=False)


def first_table() -> Table:
    """Return the methods that most people need, and when."""
    return Table(("method", "if you have"), list(FIRST.items()), numbers=False)


def methods_table(methods: Sequence[Method] | None = None, *, short: bool = False) -> Table:
    """Return the table of all methods or of these, `short` for those who look at it."""
    header = ("method", "kind", "file", "requires", "queries per example", "labels", "source")
    header += ("note",)
    rows = [
        (
            *method[:3],
            ", ".join(method.requires) or NONE,
            *method[4:6],
            *(t or NONE for t in method[6:]),
        )
        for method in (list_methods() if methods is None else methods)
    ]
    shown = (0, 1, 3, 6) if short else range(len(header))
    return Table([header[i] for i in shown], [[row[i] for i in shown] for row in rows], False)


def _folded(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())
