from __future__ import annotations

import time

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewfit import Template, Verbalizer
from fewfit.errors import InputError
from fewfit.prompts import read_labels, read_rows

nasty = st.one_of(
    st.text(),
    st.sampled_from(
        ["{mask}", "{b}", "{a}", "{", "}", "{{", "%s %(a)s", "{a.__class__}", "$a", "\0"]
    ),
)


@given(a=nasty, b=nasty)
def test_user_text_stays_plain_text(a, b):
    prompt = Template("<{a}> {mask}, {{not a field}} <{b}> again <{a}>").render({"a": a, "b": b})
    assert prompt.text("WORD") == f"<{a}> WORD, {{not a field}} <{b}> again <{a}>"
    assert [part.text for part in prompt.parts if part.kind == "field"] == [a, b, a]
    assert sum(part.kind == "mask" for part in prompt.parts) == 1


def test_the_skeleton_is_the_template_without_the_user():
    template = Template("{text} In summary, it was {mask}.")
    one, two = (template.render({"text": text}) for text in ("{mask}", "other"))
    assert one.skeleton == two.skeleton
    assert one.user_text == "{mask}"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{text} no slot", "exactly one {mask} is needed, found 0"),
        ("{text} {mask} {mask}", "found 2"),
        ("only {mask}", "no field"),
        ("{text {mask}", "position 0"),
        ("{text} {mask} }", "'}' at position 14"),
        ("{text!r} {mask}", "belongs to no field"),
        ("{text:>99} {mask}", "belongs to no field"),
        ("{0} {mask}", "belongs to no field"),
        ("{te xt} {mask}", "belongs to no field"),
        ("{} {mask}", "belongs to no field"),
        (7, "expected a string"),
    ],
)
def test_bad_templates_are_refused(source, message):
    with pytest.raises(InputError) as error:
        Template(source)
    assert message in str(error.value)


def test_a_missing_field_is_named():
    with pytest.raises(InputError, match="field 'b' of the template is missing"):
        Template("{a} {mask} {b}").render({"a": "x"})


def test_verbalizer_orders_classes_and_words():
    verbalizer = Verbalizer({"pos": ["great", " good "], "neg": "bad"})
    assert verbalizer.classes == ("neg", "pos")
    assert verbalizer.words == ("bad", "great", "good")
    assert verbalizer.word_class == (0, 1, 1)
    assert Verbalizer(dict(verbalizer.to_list())).words == verbalizer.words
    assert Verbalizer({10: "ten", 9: "nine"}).classes == (9, 10)
    assert verbalizer.first == ("bad", "great")


def test_the_words_of_many_classes_cost_no_more_for_each_class():
    verbalizer = Verbalizer({k: [f"w{k}", f"v{k}"] for k in range(1000)})
    start = time.process_time()
    assert [verbalizer.first[k] for k in range(1000)] == [f"w{k}" for k in range(1000)]
    assert verbalizer.labels == {k: [f"w{k}", f"v{k}"] for k in range(1000)}
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"a": "x"}, "at least two classes"),
        ({"a": "Yes", "b": "yes "}, "stands for 'a' and for 'b'"),
        ({"a": ["x", "X"], "b": "y"}, "given once"),
        ({"a": "", "b": "y"}, "has the label word ''"),
        ({"a": [], "b": "y"}, "no label word"),
        ({"a": [None], "b": "y"}, "has the label word None"),
        ({"": "x", "b": "y"}, "a class is missing: it is empty"),
        ({"a": "x", 1: "y"}, "all strings or all integers"),
        ({True: "x", 2: "y"}, "all booleans, not both"),
        ({b"a": "x", b"b": "y"}, "got b'a'; decode"),
        ({None: "x", "b": "y"}, "a class is missing (None)"),
        (["a", "b"], "expected a mapping"),
    ],
)
def test_bad_label_words_are_refused(labels, message):
    with pytest.raises(InputError) as error:
        Verbalizer(labels)
    assert message in str(error.value)


def test_rows_come_from_whatever_holds_them():
    datasets = pytest.importorskip("datasets")
    np = pytest.importorskip("numpy")
    columns = {"a": ["1", "2"], "b": ["3", "4"], "id": [7, 8]}
    expected = [{"a": "1", "b": "3"}, {"a": "2", "b": "4"}]
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    frame = pd.DataFrame(columns, index=[5, 5])
    for X in (columns, rows, frame, datasets.Dataset.from_dict(columns), tuple(rows)):
        assert read_rows(X, ("a", "b")) == expected
    texts = [{"a": "1"}, {"a": "2"}]
    for X in (["1", "2"], np.array(["1", "2"], dtype=object), np.array(["1", "2"]), frame["a"]):
        assert read_rows(X, ("a",)) == texts
        assert all(type(row["a"]) is str for row in read_rows(X, ("a",)))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("one string", "single string"),
        (["ok", None], "row 1, field 'a': expected text, got None"),
        (["ok", float("nan")], "row 1, field 'a': expected text, got nan"),
        (pd.DataFrame({"a": ["x", None]}), "row 1, field 'a'"),
        (pd.DataFrame({"z": ["x"]}), "needs column 'a'; the table has ['z']"),
        ([{"a": "x"}, {"b": "y"}], "row 1 lacks the field 'a'"),
        (["ok", "\ud800"], "row 1, field 'a': a lone surrogate"),
        ([["x"], ["y"]], "row 0, field 'a': expected text"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}).to_numpy(), "array of shape (1, 2)"),
        (7, "got int"),
        ({"a": ["x"], "b": []}, "different lengths"),
    ],
)
def test_bad_rows_are_refused_by_number(X, message):
    with pytest.raises(InputError) as error:
        read_rows(X, ("a",))
    assert message in str(error.value)


def test_one_text_is_not_enough_for_two_fields():
    with pytest.raises(InputError, match="single text, but the template has the fields"):
        read_rows(["x"], ("a", "b"))


@pytest.mark.parametrize(
    ("y", "n", "message"),
    [
        ("ab", 2, "got str"),
        (["a"], 2, "1 labels for 2 examples"),
        (["a", None], 2, "row 1 is missing"),
        (["a", float("nan")], 2, "row 1 is missing"),
        (pd.Series(["a", None]), 2, "row 1 is missing"),
        ([1.5, 2.5], 2, "got 1.5"),
        (["a", 1], 2, "all strings or all integers"),
        ([["a"], ["b"]], 2, "got ['a']"),
    ],
)
def test_bad_labels_are_refused(y, n, message):
    with pytest.raises(InputError) as error:
        read_labels(y, n)
    assert message in str(error.value)
