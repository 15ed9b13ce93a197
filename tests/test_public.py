from __future__ import annotations

import subprocess
import sys

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
        "load_model",
    ]
    public = {name for name in vars(fewfit) if not name.startswith("_")}
    modules = {name for name in public if type(getattr(fewfit, name)).__name__ == "module"}
    assert public - modules == set(fewfit.__all__) - {"__version__"}


def test_error_tree_is_pinned():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert all(issubclass(kind, errors.FewfitError | errors.FewfitWarning) for kind in kinds)
    for kind in kinds:
        if kind.__name__ not in errors.__doc__:
            assert issubclass(kind, errors.FewfitWarning), f"{kind.__name__} is not in the tree"


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, fewfit, fewfit.cli, fewfit.demo, fewfit.methods\n"
        "fewfit.methods.methods_table()\n"
        # pandas is not in the list: scikit-learn imports it where it is installed
        "heavy = {'torch', 'transformers', 'tokenizers', 'matplotlib', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
