"""What a task finds at its start is what its load policy says."""

import pytest

pytestmark = pytest.mark.metaflow


@pytest.fixture(scope="module")
def generations(run_flow):
    return [run_flow("policies", generation=number).told for number in (1, 2)]


def test_eager_finds_the_newest_of_an_earlier_run(generations):
    first, second = generations
    assert first["eager0"] is None
    assert second["eager0"] == [{"mark": "generation 1, branch 0"}, "newest"]


def test_branches_of_equal_and_unprintable_values_are_told_apart(generations):
    _, second = generations
    assert second["eager1"] == [{"mark": "generation 1, branch 1"}, "newest"]
    assert second["identifier0"] == "PolicyFlow/branch/user:ada/0"
    assert second["identifier1"] == "PolicyFlow/branch/user:ada/1"


def test_fresh_and_none_find_nothing_of_another_run(generations):
    _, second = generations
    assert second["fresh"] is False
    assert second["none"] == [False, None]


def test_what_a_join_merged_is_saved_even_if_never_touched(generations):
    assert generations[0]["merged"] == ["values"]
    assert generations[0]["touched"] is False


def test_tasks_of_a_foreach_are_listed_by_their_pathspec(generations):
    assert generations[0]["of_branches"] == [["aside", "newest"]] * 2


def test_full_namespace_lists_every_run(generations):
    assert [told["namespace"] for told in generations] == [1, 2]
