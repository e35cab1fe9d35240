"""How large a state is, without pickling it; and the memory that a loop reserves by that."""

from __future__ import annotations

import collections
from types import SimpleNamespace

import numpy as np
import pytest
from looping import Attempts
from metaflow_extensions.ckptstore.plugins.checkpoint.sizing import array_bytes

import ckptstore

MIB = 1 << 20


class Evil:
    """Whoever runs its code notices."""

    def __getattr__(self, name):
        raise AssertionError(name)

    def __len__(self):
        raise AssertionError("len")

    def __reduce__(self):
        raise AssertionError("reduce")


def test_arrays_are_found_in_containers_and_objects_and_counted_once():
    one, two = np.zeros(10, "f4"), np.zeros((2, 3), "f8")
    state = {"a": [one, (one, {"b": two})], "o": SimpleNamespace(inner=collections.OrderedDict(x=two, y={1}))}
    assert array_bytes([state, one]) == one.nbytes + two.nbytes


def test_cycles_end_and_no_code_of_the_state_runs():
    evil = Evil()
    evil.__dict__["self"] = [evil, np.zeros(7, "u1")]
    assert array_bytes([evil, str, np, "text", b"bytes", None, 1.5]) == 7


def test_only_so_many_objects_are_looked_at():
    assert array_bytes([[np.zeros(1, "u1") for _ in range(150_000)]]) < 100_001


def test_modules_and_their_optimizers_are_counted():
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(100, 50)
    optimizer = torch.optim.Adam(model.parameters())
    weights = (100 * 50 + 50) * 4
    assert array_bytes([model, optimizer]) == weights
    model(torch.ones(100)).sum().backward()
    optimizer.step()
    assert weights * 3 <= array_bytes([model, optimizer]) < weights * 3 + 100


@pytest.fixture
def reserved(monkeypatch):
    sizes = []
    monkeypatch.setattr(
        ckptstore.CheckpointStore, "reserve", lambda self, nbytes, *, wait: sizes.append((nbytes, wait))
    )
    return sizes


def training(nbytes, **options):
    def step(flow, checkpoint):
        flow.weights = np.zeros(nbytes, "u1")
        for flow.epoch in checkpoint.loop(range(3), **options):
            if flow.epoch == 0:
                flow.moments = np.zeros(nbytes, "u1")

    return step


def test_a_loop_has_memory_ready_for_its_first_background_save(tmp_path, reserved):
    """Again after the first iteration: what an optimizer holds is not there before."""
    Attempts(tmp_path).run(training(16 * MIB, every=3))
    assert reserved == [(16 * MIB, False), (32 * MIB, False)]


@pytest.mark.parametrize(("nbytes", "options"), [(16 * MIB, {"wait": True}), (MIB, {})])
def test_a_loop_without_background_saves_or_much_state_reserves_nothing(tmp_path, reserved, nbytes, options):
    Attempts(tmp_path).run(training(nbytes, **options))
    assert reserved == []
