"""Writers that save in turn: who begins anew comes after all that is there."""

from typing import Any


def test_writers_that_begin_anew_in_turn_are_listed_in_the_order_of_their_saves(open_store: Any) -> None:
    writers = {"parent": open_store(), "child": open_store()}
    turns = ["parent", "parent", "child", "parent", "child", "child", "parent"]
    last = None
    for number, who in enumerate(turns):
        if who != last:
            writers[who].begin("c", anew=True)
        writers[who].save("c", {"n": number})
        last = who
    reader = open_store()
    found = list(reader.list("c"))
    assert [reader.load(one)["n"] for one in found] == [6, 5, 4, 3, 2, 1, 0]


def test_beginning_anew_stays_above_what_the_same_writer_may_still_commit(open_store: Any) -> None:
    store = open_store()
    store.begin("c")
    store.begin("c", anew=True)
    assert store.save("c", {"n": 0}).epoch == 2
    store.begin("c")
    assert store.save("c", {"n": 1}).epoch == 2
