"""What every tuning method promises. Needs torch when it is called."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fewfit.errors import ArtifactError, InputError, MissingExtraError
from fewfit.testing.tuning_case import TEXTS, TuningCase, answers, data, same, short_run, state

if TYPE_CHECKING:
    from fewfit.tuning import Trunk, TuningMethod


def check_neutral(case: TuningCase) -> None:
    """A fresh adapter leaves the network as it is, bit for bit, while it acts and afterwards."""
    import torch

    method = replace(case.method, **case.method.neutral)
    adapter = method.build(case.trunk, 0).to(case.trunk.device)
    assert torch.equal(answers(case.trunk, adapter), case.plain), "a fresh adapter changes answers"
    assert torch.equal(answers(case.trunk), case.plain), "it does not go away again"


def check_network(case: TuningCase) -> None:
    """Training changes the answers, and never the network: no number, no hook, no gradient."""
    import torch

    plain = case.plain
    assert (case.said - plain).abs().max() > 1e-4, "training changed nothing"
    same(case.before, state(case.trunk))
    assert torch.equal(answers(case.trunk), plain)
    parts = case.trained.parts(case.trunk.network)
    assert parts, "nothing is trained"
    assert all(p.dtype == torch.float32 for p in parts.values())


def check_saved(case: TuningCase) -> None:
    """What an artifact keeps is all there is, and its options make the method again."""
    import torch

    from fewfit.tuning.artifact import load_adapter, restore, save_adapter

    trunk = case.trunk
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(
            Path(folder) / "adapter",
            case.trained,
            method=case.method,
            base_spec=None,
            base_identity=trunk.identity,
            recipe=short_run().recipe or case.method.recipe,
            seed=0,
            n_examples=len(TEXTS),
        )
        manifest, tensors = load_adapter(Path(folder) / "adapter")
    assert manifest.make() == case.method, "the options do not survive"
    other = case.base()
    again = restore(manifest, tensors, other)
    assert torch.equal(answers(other, again), case.said), "something is not saved"
    first = next(iter(tensors))
    for wrong in (
        {name: t for name, t in tensors.items() if name != first},
        {**tensors, "odd": torch.zeros(1)},
        {**tensors, first: torch.zeros(*tensors[first].shape, 2)},
    ):
        _refuses(ArtifactError, lambda wrong=wrong: again.restore(wrong), "a wrong set of tensors")


def check_merged(case: TuningCase) -> None:
    """Merged into the weights it says what it says beside them; or it is refused."""
    import torch

    fresh, adapter = case.base(), case.trained
    if not adapter.mergeable:
        _refuses(InputError, lambda: adapter.merge(fresh.network), "a merge")
        return
    adapter.merge(fresh.network)
    assert torch.allclose(answers(fresh), case.said, atol=1e-4)
    assert [n for n, _ in fresh.network.named_modules()] == case.before[1]


def check_rows(case: TuningCase) -> None:
    """A row says the same alone, in a batch, and beside a longer row, which pads it."""
    import torch

    alone = [answers(case.trunk, case.trained, [text]) for text in TEXTS]
    assert torch.allclose(torch.cat(alone), case.said, atol=1e-4)
    padded = answers(case.trunk, case.trained, [TEXTS[0], " ".join([TEXTS[2]] * 2)])
    assert torch.allclose(padded[: len(alone[0])], alone[0], atol=1e-4)


def check_tensors(case: TuningCase) -> None:
    """What is kept is a copy, and matters: most tensors, changed, change the answers."""
    import torch

    tensors = {name: t.clone() for name, t in case.trained.tensors().items()}
    fresh = case.method.build(case.trunk, 0).to(case.trunk.device)
    numbers = [name for name, t in tensors.items() if t.is_floating_point()]
    idle = []
    for name in numbers:
        fresh.restore({**tensors, name: tensors[name] + 0.5})
        if torch.equal(answers(case.trunk, fresh), case.said):
            idle.append(name)
    assert len(idle) <= len(numbers) // 4, f"no effect: {idle}"
    given = fresh.tensors()
    before = {name: t.clone() for name, t in given.items()}
    fresh.restore(tensors)
    with torch.no_grad():
        for part in fresh.parameters():
            part += 1.0
    kept = all(torch.equal(given[name], before[name]) for name in before)
    assert kept, "tensors() gives a copy, which restore() does not change"
    own = case.trained.tensors()
    kept = all(torch.equal(tensors[name], own[name]) for name in own)
    assert kept, "restore() takes a copy, which training does not change"


def check_resumed(case: TuningCase) -> None:
    """An interrupted run goes on to the same tensors; one of another seed is refused."""
    import torch

    total = short_run().recipe.steps * case.method.trainings(1)  # pyright: ignore[reportOptionalMemberAccess]
    made = [0]

    def stop(n: int) -> None:
        made[0] += n
        if made[0] == max(1, total - 2):
            raise KeyboardInterrupt

    expected = case.trained.tensors()
    with tempfile.TemporaryDirectory() as folder:
        run = replace(short_run(), checkpoint=Path(folder) / "run", every=2)
        try:
            case.method.fit(case.trunk, data(), replace(run, progress=stop))
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("progress counts other steps than trainings() says")
        same(case.before, state(case.trunk))
        found = case.method.fit(case.trunk, data(), run).tensors()
        other = replace(run, seed=1)
        _refuses(InputError, lambda: case.method.fit(case.trunk, data(), other), "another seed")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def check_half_precision(case: TuningCase) -> None:
    """On bfloat16 weights it trains, in float32, and the weights stay bit for bit."""
    import torch

    trunk = case.base()
    trunk.network.to(torch.bfloat16)
    before = state(trunk)
    adapter = case.method.fit(trunk, data(), short_run())
    same(before, state(trunk))
    assert torch.isfinite(answers(trunk, adapter)).all()
    tensors = adapter.tensors()
    assert all(t.dtype == torch.float32 for t in tensors.values() if t.is_floating_point())


def check_options(case: TuningCase) -> None:
    """The table finds it by name, and its options are its own: others are refused."""
    from fewfit.tuning import make_method, name_of
    from fewfit.tuning.method import options_of

    name, options = name_of(case.method), options_of(case.method)
    assert make_method(name, options) == case.method
    _refuses(InputError, lambda: make_method(name, {"no_such_option": 1}), "an unknown option")


TUNING_CHECKS: tuple[Callable[[TuningCase], None], ...] = (
    check_options,
    check_neutral,
    check_network,
    check_saved,
    check_merged,
    check_rows,
    check_tensors,
    check_resumed,
    check_half_precision,
)


def check_tuning_method(method: TuningMethod, base: Callable[[], Trunk]) -> None:
    """Check that a tuning method keeps the promises of all tuning methods.

    Parameters
    ----------
    method : TuningMethod
        In the table of methods, with the options to be checked; small ones make it fast.
    base : callable
        Returns a network afresh, without dropout, each time the same; a tiny random one will do:
        ``lambda: Trunk.load("hf:FOLDER")``.

    Raises
    ------
    AssertionError
        Or whatever the method raises, at the first promise that is not kept.
    """
    case = TuningCase(method, base)
    for check in TUNING_CHECKS:
        check(case)


def _refuses(kind: type[Exception], action: Callable[[], object], what: str) -> None:
    try:
        action()
    except MissingExtraError:
        raise
    except kind:
        return
    raise AssertionError(f"{what} was not refused with {kind.__name__}")
