"""Graphs whose pickles hold something else than they say."""

from __future__ import annotations

import pickle
from typing import Any

import msgpack
import pytest
from trip import LIMITS

from ckptstore.errors import ManifestCorruptError
from ckptstore.serializers import Registry, RestorePlan


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("made", [None, [1, 2], (1,), (1, 2, 3), ()], ids=repr)
def test_a_pickle_that_does_not_hold_its_members_is_refused(trusted: bool, made: Any) -> None:
    def load(made: Any) -> Any:
        plan = RestorePlan(["f"], limits=LIMITS, registry=Registry(), trusted=trusted)
        nodes = [["member", [2], 0], ["member", [2], 1], ["pickle", pickle.dumps(made, 5), [], [], [], 2]]
        plan.add_graph("f", msgpack.packb([[3], [*nodes, ["list", [[0], [1]]]]]), ())
        return plan.build({})["f"]

    assert load((1, 2)) == [1, 2]
    with pytest.raises(ManifestCorruptError, match=r"'f'.* does not hold the 2 objects"):
        load(made)
