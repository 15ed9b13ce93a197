"""Tuning a small part of, or beside, a network whose weights are at hand.

The table of methods needs nothing; all else needs torch, and is imported when it is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from fewfit.errors import InputError, MissingExtraError
from fewfit.registry import Registry

if TYPE_CHECKING:
    from fewfit.tuning.adapter import Adapter, Group, Place, SiteAdapter, Together
    from fewfit.tuning.adapters.ia3 import IA3
    from fewfit.tuning.adapters.peft import PeftAdapter, add_lora
    from fewfit.tuning.artifact import (
        load_original,
        load_start,
        load_vectors,
        save_adapter,
        save_vectors,
    )
    from fewfit.tuning.choices import ChoiceEncoder, ChoiceExample
    from fewfit.tuning.losses import (
        Objective,
        TokenLogProbs,
        distillation_loss,
        language_model_loss,
        length_normalised_loss,
        rank,
        unlikelihood_loss,
    )
    from fewfit.tuning.measure import Meter
    from fewfit.tuning.method import Data, Run, TuningMethod, learn
    from fewfit.tuning.packing import ChoiceBatch, Packer
    from fewfit.tuning.rates import fit_at_best_rate
    from fewfit.tuning.reading import ranked
    from fewfit.tuning.rounds.pet import pet
    from fewfit.tuning.selector import RandomSelector, Selector, top_k
    from fewfit.tuning.sites import LAYOUTS, Site, SiteMap, Stack, site_map
    from fewfit.tuning.sparse.compose import compose
    from fewfit.tuning.sparse.delta import MaskedUpdate, SparseDelta
    from fewfit.tuning.sparse.own import OwnScalars
    from fewfit.tuning.tfew import PRETRAINING, t_few, tune
    from fewfit.tuning.training import Recipe, train
    from fewfit.tuning.trunk import Trunk
    from fewfit.tuning.tuned import TunedModel


class Entry(NamedTuple):
    """A line of the table.

    Attributes
    ----------
    where : str
        ``"module:Class"``, the module relative to this room.
    reference : str
        Author, year, arXiv id.
    labels : str
        Labels needed.
    needs : tuple of str
        What the model, or the machine, must give.
    """

    where: str
    reference: str
    labels: str = "1 in all"
    needs: tuple[str, ...] = ("gradients",)


_POOL = "1 in all, and unlabelled texts"

ENTRIES: dict[str, Entry] = {
    "apt": Entry("adapters.apt:APT", "Wu et al. 2023, arXiv 2306.15706"),
    "bitfit": Entry("sparse.bitfit:BitFit", "Ben Zaken et al. 2021, arXiv 2106.10199"),
    "contrastive": Entry(
        "losses.contrastive:Contrastive",
        "Khosla et al. 2020, arXiv 2004.11362",
        "1 per class",
    ),
    "cpt": Entry("prompts.cpt:CPT", "Blau et al. 2024, arXiv 2410.17222"),
    "dept": Entry("prompts.dept:DePT", "Shi & Lipani 2024, arXiv 2309.05173"),
    "diff-pruning": Entry("sparse.diff_pruning:DiffPruning", "Guo et al. 2021, arXiv 2012.07463"),
    "dsee": Entry("sparse.dsee:DSEE", "Chen et al. 2023, arXiv 2111.00160"),
    "embeddings-head": Entry(
        "sparse.parts:EmbeddingsAndHead", "Zlotchevski et al. 2022, arXiv 2208.13928"
    ),
    "ept": Entry("prompts.ept:EPT", "Lan et al. 2025, arXiv 2405.11464"),
    "fish": Entry("sparse.fish:FISH", "Sung et al. 2021, arXiv 2111.09839"),
    "focal": Entry("losses.focal:Focal", "Lin et al. 2017, arXiv 1708.02002"),
    "full": Entry("sparse.parts:FullTuning", ""),
    "gradient-mask": Entry("sparse.fish:GradientMask", ""),
    "greentrainer": Entry("sparse.green:GreenTrainer", "Huang et al. 2024, arXiv 2309.13192"),
    "hft": Entry("sparse.hft:HFT", "Hui et al. 2025, arXiv 2404.18466"),
    "gradual-unfreezing": Entry(
        "layers.unfreezing:GradualUnfreezing", "Howard & Ruder 2018, arXiv 1801.06146"
    ),
    "ia3": Entry("adapters.ia3:ScaledActivations", "Liu et al. 2022, arXiv 2205.05638"),
    "iapt": Entry("prompts.iapt:IAPT", "Zhu et al. 2024, arXiv 2405.18203"),
    "ipet": Entry("rounds.pet:IPET", "Schick & Schütze 2021, arXiv 2001.07676", _POOL),
    "ladder": Entry("side.ladder:LadderSideTuning", "Sung et al. 2022, arXiv 2206.06522"),
    "last-blocks": Entry("sparse.parts:LastBlocks", "Zlotchevski et al. 2022, arXiv 2208.13928"),
    "layer-norms": Entry("sparse.parts:LayerNorms", "Zhao et al. 2023, arXiv 2312.11420"),
    "list": Entry("rounds.self_training:LiST", "Wang et al. 2021, arXiv 2110.06274", _POOL),
    "locft": Entry("sparse.locft:LocFT", "Yang et al. 2026, arXiv 2509.22072"),
    "lora": Entry("adapters.peft:LoRA", "Hu et al. 2022, arXiv 2106.09685"),
    "lt-sft": Entry("sparse.lt_sft:LTSFT", "Ansell et al. 2022, arXiv 2110.07560"),
    "magnitude-mask": Entry("sparse.masks:MagnitudeMask", ""),
    "mam": Entry("adapters.mam:MAM", "He et al. 2022, arXiv 2110.04366"),
    "panda": Entry("prompts.panda:PANDA", "Zhong et al. 2024, arXiv 2208.10160"),
    "parallel-adapter": Entry(
        "adapters.bottleneck:ParallelAdapter", "He et al. 2021, arXiv 2110.04366"
    ),
    "peft": Entry("adapters.peft:PeftTuning", ""),
    "pet": Entry("rounds.pet:PET", "Schick & Schütze 2021, arXiv 2001.07676", _POOL),
    "prefix-tuning": Entry(
        "prompts.prefix_tuning:PrefixTuning", "Li & Liang 2021, arXiv 2101.00190"
    ),
    "promot": Entry("prompts.promot:ProMoT", "Wang et al. 2024, arXiv 2211.00635"),
    "prompt-tuning": Entry(
        "prompts.prompt_tuning:PromptTuning", "Lester et al. 2021, arXiv 2104.08691"
    ),
    "ptec": Entry(
        "prompts.ptec:PTEC", "Buchner et al. 2024, arXiv 2309.12075", "both sides of each label"
    ),
    "random-mask": Entry("sparse.masks:RandomMask", "Xu & Zhang 2024, arXiv 2405.02596"),
    "series-adapter": Entry(
        "adapters.bottleneck:SeriesAdapter", "Houlsby et al. 2019, arXiv 1902.00751"
    ),
    "swr": Entry("sparse.swr:SWR", "Kim et al. 2023, arXiv 2302.13435"),
    "t-few": Entry("tfew:TFew", "Liu et al. 2022, arXiv 2205.05638"),
}
"""Name -> the house's own methods."""

_MADE = {"composed": "sparse.compose:Composed"}
"""Name -> class of what an artifact can be of though nobody trains it."""
ENCODERS = ("embedded", "embedded-en", "embedded-en-float32", "encoder")
"""Kinds of models that are sentence encoders whose weights, or those of the same size, can be had.

Of what a package carries it is the one in float32 that is tuned, whichever is named.
"""


def is_encoder(spec: str) -> bool:
    """Return whether a spec names a sentence encoder, which has no choices to score."""
    return spec.partition(":")[0] in ENCODERS


METHODS = Registry(__name__, {name: entry.where for name, entry in ENTRIES.items()})
"""Name -> class, the house's and those of installed packages; imported when looked up."""


def load(name: str) -> type[TuningMethod]:
    """Return the class of a method.

    Raises
    ------
    InputError
        If there is none of this name.
    MissingExtraError
        Without torch.
    """
    from fewfit.parameters import did_you_mean  # numpy, which the table does not need

    if name in _MADE:
        _need_torch()
        module, _, attribute = _MADE[name].partition(":")
        return getattr(import_module(f"{__name__}.{module}"), attribute)
    if name not in METHODS:
        raise InputError(
            f"method: {name!r} is not one of {sorted(METHODS)}{did_you_mean(name, METHODS)}"
        )
    _need_torch()
    return METHODS[name]


def make_method(name: str, options: Mapping[str, Any] | None = None) -> TuningMethod:
    """Return a method with options; those that are left out have their defaults.

    Raises
    ------
    InputError
        For an unknown method or option, or an option that is not of its kind.
    """
    from dataclasses import MISSING, fields

    from fewfit.parameters import did_you_mean

    kind, given = load(name), dict(options or {})
    known = {field.name: field for field in fields(kind) if field.init}
    for option in given:
        if option not in known:
            raise InputError(
                f"option: {name} has no {option!r}; it has {sorted(known)}"
                f"{did_you_mean(option, known)}"
            )
    need = {n for n, f in known.items() if f.default is f.default_factory is MISSING}
    if missing := sorted(need - given.keys()):
        raise InputError(f"option: {name} needs {missing[0]!r}, which has no default")
    try:
        return kind(**given)
    except InputError as error:
        raise InputError(f"method {name}: {error}") from None


def name_of(method: TuningMethod) -> str:
    """Return the name under which the table has a method (InputError if it has it not)."""
    for name, where in {**METHODS.entries, **_MADE}.items():
        module, _, attribute = where.partition(":")
        if (f"{__name__}.{module}", attribute) == (type(method).__module__, type(method).__name__):
            return name
    for name in METHODS:
        if name not in METHODS.entries and METHODS[name] is type(method):
            return name
    raise InputError(
        f"method: {type(method).__name__} is not in the table, so that no other process would find "
        "it; add a line for it, or an entry point"
    )


_PLACES = {
    "Adapter": "adapter",
    "ChoiceBatch": "packing",
    "ChoiceEncoder": "choices",
    "ChoiceExample": "choices",
    "Data": "method",
    "Group": "adapter",
    "IA3": "adapters.ia3",
    "LAYOUTS": "sites",
    "MaskedUpdate": "sparse.delta",
    "Meter": "measure",
    "Objective": "losses",
    "OwnScalars": "sparse.own",
    "PRETRAINING": "tfew",
    "Packer": "packing",
    "PeftAdapter": "adapters.peft",
    "Place": "adapter",
    "RandomSelector": "selector",
    "Recipe": "training",
    "Run": "method",
    "Selector": "selector",
    "Site": "sites",
    "SiteAdapter": "adapter",
    "SiteMap": "sites",
    "SparseDelta": "sparse.delta",
    "Stack": "sites",
    "Together": "adapter",
    "TokenLogProbs": "losses",
    "Trunk": "trunk",
    "TunedModel": "tuned",
    "TuningMethod": "method",
    "add_lora": "adapters.peft",
    "compose": "sparse.compose",
    "distillation_loss": "losses",
    "fit_at_best_rate": "rates",
    "language_model_loss": "losses",
    "learn": "method",
    "length_normalised_loss": "losses",
    "load_original": "artifact",
    "load_start": "artifact",
    "load_vectors": "artifact",
    "pet": "rounds.pet",
    "rank": "losses",
    "ranked": "reading",
    "save_adapter": "artifact",
    "save_vectors": "artifact",
    "site_map": "sites",
    "t_few": "tfew",
    "top_k": "selector",
    "train": "training",
    "tune": "tfew",
    "unlikelihood_loss": "losses",
}

__all__ = [
    "ENCODERS",
    "ENTRIES",
    "IA3",
    "LAYOUTS",
    "METHODS",
    "PRETRAINING",
    "Adapter",
    "ChoiceBatch",
    "ChoiceEncoder",
    "ChoiceExample",
    "Data",
    "Entry",
    "Group",
    "MaskedUpdate",
    "Meter",
    "Objective",
    "OwnScalars",
    "Packer",
    "PeftAdapter",
    "Place",
    "RandomSelector",
    "Recipe",
    "Run",
    "Selector",
    "Site",
    "SiteAdapter",
    "SiteMap",
    "SparseDelta",
    "Stack",
    "Together",
    "TokenLogProbs",
    "Trunk",
    "TunedModel",
    "TuningMethod",
    "add_lora",
    "compose",
    "distillation_loss",
    "fit_at_best_rate",
    "language_model_loss",
    "learn",
    "length_normalised_loss",
    "load",
    "load_original",
    "load_start",
    "load_vectors",
    "make_method",
    "name_of",
    "pet",
    "rank",
    "ranked",
    "save_adapter",
    "save_vectors",
    "site_map",
    "t_few",
    "top_k",
    "train",
    "tune",
    "unlikelihood_loss",
]


def _need_torch() -> None:
    try:
        import_module("torch")
        import_module("transformers")
    except ImportError as error:
        raise MissingExtraError(f'tuning needs {error.name}: pip install "fewfit[tune]"') from None


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _need_torch()
    value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
