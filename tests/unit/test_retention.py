"""Retention policies: what they keep, how they combine, and their text."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptstore import Keep, best, every, last, max_age
from ckptstore.errors import ConfigError, InvalidPolicyError
from ckptstore.retention import Candidate

ROOT = Path(__file__).parents[2]
NUMBERS = [0, 1, -1, 0.5, math.inf, -math.inf, math.nan, 2**63, True, "1", None, [1]]
METADATA = st.none() | st.dictionaries(st.sampled_from(["loss", "acc"]), st.sampled_from(NUMBERS))
ATTRIBUTES = st.none() | st.dictionaries(
    st.sampled_from(["a", "b"]), st.sampled_from([0, 1, 1.0, True, None, "1"])
)
CANDIDATES = st.lists(
    st.builds(
        Candidate, st.integers(0, 8), st.sampled_from([-5.0, 0.0, 59.0, 60.0, 1e6]), METADATA, ATTRIBUTES
    ),
    max_size=8,
)
COUNTS = st.integers(1, 4)
LASTS = st.builds(lambda n: (last(n), ("last", n, {})), COUNTS)
LASTS_WITH = st.builds(
    lambda n, items: (last(n, attributes=items), ("last", n, items)),
    COUNTS,
    st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from([1, True, None, "1"]), min_size=1),
)
BESTS = st.builds(
    lambda metric, n, mode: (best(metric, n, mode), ("best", metric, n, mode)),
    st.sampled_from(["loss", "acc", "not there"]),
    COUNTS,
    st.sampled_from(["min", "max"]),
)
EVERYS = st.builds(lambda n: (every(n), ("every", n)), COUNTS)
AGES = st.builds(lambda s: (max_age(s), ("max_age", s)), st.sampled_from([1e-3, 60, 60.5, 86_400]))
RULES = st.one_of(LASTS, LASTS_WITH, BESTS, EVERYS, AGES)


def same_value(found: Any, wanted: Any) -> bool:
    return isinstance(found, bool) == isinstance(wanted, bool) and bool(found == wanted)


def contains(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(name in found and same_value(found[name], value) for name, value in wanted.items())


def rank(value: Any) -> bool:
    return type(value) in (int, float) and not (isinstance(value, float) and math.isnan(value))


def oracle(rule: tuple[Any, ...], candidates: Sequence[Candidate]) -> set[int]:
    """What one rule keeps, one checkpoint at a time and from the words of the documentation."""
    kept = set()
    for at, one in enumerate(candidates):
        newer = range(at)
        if rule[0] == "last":
            _, n, wanted = rule
            if wanted and one.attributes is None:
                kept.add(at)
            elif contains(one.attributes or {}, wanted):
                before = [i for i in newer if not wanted or contains(candidates[i].attributes or {}, wanted)]
                if len(before) < n:
                    kept.add(at)
        elif rule[0] == "best":
            _, metric, n, mode = rule
            if one.metadata is None:
                kept.add(at)
                continue
            mine = one.metadata.get(metric)
            if not rank(mine):
                continue
            better = 0
            for i, other in enumerate(candidates):
                value = (other.metadata or {}).get(metric)
                if i != at and rank(value):
                    better += (value < mine if mode == "min" else value > mine) or (value == mine and i < at)
            if better < n:
                kept.add(at)
        elif rule[0] == "every":
            if one.seq % rule[1] == 0:
                kept.add(at)
        elif one.age_s < rule[1]:
            kept.add(at)
    return kept


@given(RULES, CANDIDATES)
def test_a_rule_keeps_what_its_words_say(rule: Any, candidates: list[Candidate]) -> None:
    keep, words = rule
    assert keep.kept(candidates) == oracle(words, candidates)


@given(st.lists(RULES, min_size=1, max_size=4), CANDIDATES)
def test_together_they_keep_what_any_keeps(rules: list[Any], candidates: list[Candidate]) -> None:
    keep = rules[0][0]
    for other, _ in rules[1:]:
        keep = keep | other
    assert keep.kept(candidates) == set().union(*(oracle(words, candidates) for _, words in rules))


@given(st.lists(RULES, min_size=1, max_size=4), st.lists(CANDIDATES, min_size=1, max_size=1))
def test_a_policy_comes_back_from_its_text_and_from_a_pickle(rules: list[Any], candidates: Any) -> None:
    keep = rules[0][0]
    for other, _ in rules[1:]:
        keep = keep | other
    for again in (Keep.parse(str(keep)), pickle.loads(pickle.dumps(keep)), eval(repr(keep), {"Keep": Keep})):
        assert again == keep
        assert hash(again) == hash(keep)
        assert str(again) == str(keep)
        assert again.kept(candidates[0]) == keep.kept(candidates[0])


@given(st.text(min_size=1, max_size=8), st.floats(1e-9, 1e9), st.text(max_size=5) | st.floats(-1e15, 1e15))
def test_any_name_and_number_comes_back_from_the_text(name: str, seconds: float, value: Any) -> None:
    keep = best(name) | max_age(seconds) | last(1, attributes={name: value})
    assert Keep.parse(str(keep)) == keep


def test_of_equals_the_newer_is_the_best() -> None:
    equal = [Candidate(seq, metadata={"loss": 0.5}) for seq in (3, 2, 1)]
    assert best("loss").kept(equal) == {0}
    assert best("loss", 2, "max").kept(equal) == {0, 1}


def test_every_is_stable_whatever_was_deleted_before() -> None:
    seqs = list(range(20, -1, -1))
    kept = every(5).kept([Candidate(seq) for seq in seqs])
    assert [seqs[at] for at in sorted(kept)] == [20, 15, 10, 5, 0]
    fewer = [20, 17, 15, 0]
    assert every(5).kept([Candidate(seq) for seq in fewer]) == {0, 2, 3}


def test_the_text_is_what_a_person_would_write() -> None:
    keep = last(3) | best("val_loss", 2) | best("acc", 1, "max") | every(10) | max_age("7 d") | max_age(90)
    assert (
        str(keep)
        == "last(3) | best(val_loss, 2) | best(acc, 1, max) | every(10) | max_age(7 d) | max_age(90 s)"
    )
    assert repr(last(3)) == "Keep.parse('last(3)')"
    assert str(last(2, attributes={"b": None, "a": True})) == 'last(2, {"a": true, "b": null})'
    assert str(best("val loss")) == 'best("val loss", 1)'


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        ("last(3)", last(3)),
        (" last( 3 )|every(2) ", last(3) | every(2)),
        ("last(n=3)", last(3)),
        ('best("val_loss", n=2, mode="max")', best("val_loss", 2, "max")),
        ("best('val loss', 2)", best("val loss", 2)),
        ("best(val/loss)", best("val/loss")),
        ("best(max)", best("max")),
        ("max_age(7 d)", max_age(7 * 86_400)),
        ("max_age(1.5h)", max_age(5400)),
        ('max_age("30 min")', max_age("30 min")),
        ("max_age(45)", max_age(45)),
        ('last(2, {"a": 1})', last(2, attributes={"a": 1})),
        ('last(2, attributes={"a": "|(,"})', last(2, attributes={"a": "|(,"})),
        ("last(3) | last(3)", last(3)),
    ],
)
def test_texts_that_are_read(text: str, keep: Keep) -> None:
    assert Keep.parse(text) == keep


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a rule such as"),
        ("last", "a rule such as"),
        ("last(3", "character 7"),
        ("last(3,)", "character 8"),
        ("last(3) |", "character 10"),
        ("last(3) last(2)", "'|' or the end"),
        ("last(3) & last(2)", "'|' or the end"),
        ("last()", "needs n"),
        ("last(n=2, 3)", "an argument with its name"),
        ("last(n=2, n=3)", "no second n"),
        ("last(3, n=4)", "each once"),
        ("last(3, {}, 4)", "each once"),
        ("last(m=3)", "takes n, attributes"),
        ("newest(3)", "no retention rule; there are last, best, every, max_age"),
        ("__import__(os)", "no retention rule"),
        ("last(__import__)", "an int of at least 1"),
        ("best(7 d)", "the name of a metadata value"),
        ("max_age(7 y)", "one of the units s, min, h, d"),
        ("max_age(1e999 d)", "above 0"),
        ('best("x)', "a string or an object as in JSON"),
        ('last(1, {"a": [[[]]})', "a string or an object as in JSON"),
        ("last(1, " + '{"a":' * 800, "a string or an object"),
        ("best('it''s')", "',' or '\\)'"),
        ("last(3)" * 1000, "at most 4096"),
        (3, "must be a string, not int"),
        (None, "must be a string, not NoneType"),
    ],
)
def test_texts_that_are_refused_say_why(text: Any, told: str) -> None:
    with pytest.raises(InvalidPolicyError, match=told) as caught:
        Keep.parse(text)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("n", [0, -1, 1.0, "3", None, True, 2**63, math.nan, [1]])
def test_counts_that_keep_nothing_are_refused(n: Any) -> None:
    for make in (last, every, lambda n: best("loss", n)):
        with pytest.raises(InvalidPolicyError, match="n must be an int of at least 1"):
            make(n)


@pytest.mark.parametrize(
    "age", [0, -1, math.nan, math.inf, 1e10, True, None, "", "7", "d", "7 days", "-1 d", [7]]
)
def test_ages_that_mean_nothing_are_refused(age: Any) -> None:
    with pytest.raises(InvalidPolicyError, match="max_age"):
        max_age(age)


@pytest.mark.parametrize("metric", ["", None, 3, b"loss"])
def test_metrics_that_are_no_names_are_refused(metric: Any) -> None:
    with pytest.raises(InvalidPolicyError, match="metric"):
        best(metric)


@pytest.mark.parametrize("mode", ["", "Max", None, 1])
def test_unknown_modes_are_refused(mode: Any) -> None:
    with pytest.raises(InvalidPolicyError, match="'min' or 'max'"):
        best("loss", mode=mode)


@pytest.mark.parametrize(
    "attributes", [{}, [], "a", {1: 2}, {"a": [1]}, {"a": math.nan}, {"a": 2**64}, {"a": b"x"}, {"a": {}}]
)
def test_attributes_that_cannot_be_compared_are_refused(attributes: Any) -> None:
    with pytest.raises(InvalidPolicyError, match="attributes"):
        last(1, attributes=attributes)


def test_one_and_true_are_two_policies() -> None:
    assert last(1, attributes={"a": 1}) != last(1, attributes={"a": True})
    assert last(1, attributes={"a": 1, "b": 2}) == last(1, attributes={"b": 2, "a": 1})


def test_a_policy_needs_a_rule_and_joins_only_with_another() -> None:
    with pytest.raises(InvalidPolicyError, match="keep nothing"):
        Keep(())
    with pytest.raises(TypeError):
        last(3) | 3  # type: ignore[operator]
    assert issubclass(InvalidPolicyError, ConfigError)


def test_it_needs_the_standard_library_only() -> None:
    code = (
        "import sys, ckptstore; ckptstore.Keep.parse('last(3)'); ckptstore.last(1)\n"
        "tops = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(tops - set(sys.stdlib_module_names) - {'ckptstore', '__main__'}))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"
