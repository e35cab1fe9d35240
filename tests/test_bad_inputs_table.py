"""The table of bad inputs names tests that there are."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest
from bad_inputs import TABLE

HERE = Path(__file__).parent


@functools.cache
def functions_of(path: Path) -> frozenset[str]:
    found = ast.walk(ast.parse(path.read_text()))
    return frozenset(
        node.name
        for node in found
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    )


def missing(test: str) -> bool:
    name, _, function = test.partition("::")
    return not (HERE / name).is_file() or function not in functions_of(HERE / name)


@pytest.mark.parametrize("kind", TABLE)
def test_every_bad_input_has_tests_that_are_there(kind: str) -> None:
    assert len(TABLE[kind]) >= 5
    for what, tests in TABLE[kind].items():
        assert tests, f"no test of {what}"
        gone = [test for test in tests if missing(test)]
        assert not gone, f"{what}: no such test {gone}"


def test_a_test_that_is_gone_is_noticed() -> None:
    assert missing("test_bad_inputs_table.py::test_nothing_of_the_kind")
    assert missing("nowhere.py::test_x")
    assert not missing("test_bad_inputs_table.py::test_a_test_that_is_gone_is_noticed")
