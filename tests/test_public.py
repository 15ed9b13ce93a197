from __future__ import annotations

import subprocess
import sys

import pytest

import fewfit
from fewfit import errors


def test_public_names_are_pinned():
    assert sorted(fewfit.__all__) == [
        "DecT",
        "FewShotClassifier",
        "FrozenModel",
        "LinearProbe",
        "MultiLabelClassifier",
        "Observations",
        "OffsetLogisticRegression",
        "Template",
        "Verbalizer",
        "ZeroShot",
        "__version__",
        "load",
        "load_model",
    ]
    for name in fewfit.__all__:
        assert getattr(fewfit, name) is not None
    assert set(fewfit.__all__) <= set(dir(fewfit))
    with pytest.raises(AttributeError, match="no attribute 'Decoder'"):
        fewfit.Decoder  # noqa: B018


def test_error_tree_is_pinned():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert all(issubclass(kind, errors.FewfitError | errors.FewfitWarning) for kind in kinds)
    for kind in kinds:
        if kind.__name__ not in errors.__doc__:
            assert issubclass(kind, errors.FewfitWarning), f"{kind.__name__} is not in the tree"


def test_the_command_line_starts_without_the_library():
    """What makes a program of a tenth of a second one of a second and a half."""
    code = (
        "import sys, fewfit.cli\n"
        "heavy = {'numpy', 'scipy', 'sklearn', 'pandas', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, fewfit, fewfit.cli, fewfit.demo, fewfit.methods\n"
        "fewfit.methods.methods_table()\n"
        # pandas is not in the list: scikit-learn imports it where it is installed
        "heavy = {'torch', 'transformers', 'tokenizers', 'matplotlib', 'huggingface_hub'}\n"
        "heavy |= {'fastapi', 'starlette', 'uvicorn', 'prometheus_client'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
