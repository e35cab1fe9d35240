"""``current.checkpoint.load(into=...)`` fills what a step has built; ``handle`` loads parts of attributes."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from looping import Attempts
from metaflow_extensions.ckptstore.plugins.checkpoint.artifact_serializers import NOTED
from metaflow_extensions.ckptstore.plugins.checkpoint.destination import Destination
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import (
    CheckpointArgumentError,
    CheckpointException,
)

from ckptstore import CheckpointStore
from ckptstore.errors import ChunkCorruptError, DestinationError

GUIDE = Path(__file__).parents[2] / "docs/metaflow.md"


@pytest.fixture
def task(tmp_path):
    return Attempts(tmp_path)


@pytest.fixture
def saved(task):
    """A task whose first attempt has saved three attributes."""

    def step(flow, checkpoint):
        flow.model = {"w": np.arange(5000.0), "n": 1}
        flow.alone = np.ones(3000)
        flow.epoch = 7
        checkpoint.save("first", wait=True)

    task.run(step)
    return task


@pytest.mark.parametrize("inplace", [False, True], ids=["staged", "inplace"])
def test_what_is_named_is_filled_and_stays_what_it_is(saved, inplace):
    with saved.begin() as checkpoint:
        flow, w = saved.flow, np.zeros(5000)
        flow.model = model = {"w": w, "n": 0}
        flow.mine = "stays"
        checkpoint.load(into={"model": flow.model}, inplace=inplace)
        assert flow.model is model
        assert flow.model["w"] is w
        assert np.array_equal(w, np.arange(5000.0))
        assert model["n"] == 1
        assert flow.alone.sum() == 3000
        assert (flow.epoch, flow.mine) == (7, "stays")


def test_what_is_not_on_self_yet_is_there_afterwards(saved):
    with saved.begin() as checkpoint:
        alone = np.zeros(3000)
        checkpoint.load(fields=["alone"], into={"alone": alone})
        assert saved.flow.alone is alone
        assert alone.sum() == 3000
        assert set(vars(saved.flow)) == {"alone"}


def test_what_does_not_fit_is_named_and_nothing_changes(saved):
    with saved.begin() as checkpoint:
        flow = saved.flow
        flow.model, flow.alone = {"w": np.zeros(5000), "n": 0}, np.zeros(3)
        into = {"model": flow.model, "alone": flow.alone, "epoch": 0}
        with pytest.raises(DestinationError) as caught:
            checkpoint.load(into=into)
        assert "field 'alone': numpy float64 (3,) here, numpy float64 (3000,) in the checkpoint" in str(
            caught.value
        )
        assert "field 'epoch': nothing can be loaded into this (int): leave it out of into" in str(
            caught.value
        )
        assert set(vars(flow)) == {"model", "alone"}
        assert not flow.model["w"].any()


@pytest.mark.parametrize("fields", [None, ["alone", "epoch"]], ids=["of all", "of fields"])
def test_names_that_are_not_restored_are_refused(saved, fields):
    with saved.begin() as checkpoint:
        saved.flow.other = np.zeros(3)
        wanted = "alone, epoch" if fields else "model, alone, epoch"
        with pytest.raises(
            CheckpointException, match=f"can be loaded into 'other': what is restored of it is {wanted}"
        ):
            checkpoint.load(fields=fields, into={"other": saved.flow.other})
        assert set(vars(saved.flow)) == {"other"}


def test_a_checkpoint_of_files_alone_says_where_they_are(task):
    with task.begin() as checkpoint:
        Path(checkpoint.directory, "log").write_text("1")
        checkpoint.save(wait=True)
    task.session.files.close()
    with (
        task.begin() as checkpoint,
        pytest.raises(CheckpointException, match=r"only files, which are in current\.checkpoint\.directory"),
    ):
        checkpoint.load(into={"model": {}})


def test_what_a_serializer_made_is_refused(saved):
    noted = SimpleNamespace(label="best", attributes={NOTED: {"frame": {}}})
    destination = Destination(into={"frame": np.zeros(1)})
    with pytest.raises(CheckpointException, match="frame: saved by a serializer of Metaflow's"):
        destination.check(noted, ["frame"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"into": ["model"]}, "into must be a mapping of attribute names"),
        ({"into": {3: []}}, "into must be a mapping of attribute names"),
        ({"into": {}, "inplace": 1}, "inplace must be True or False, not 1"),
        ({"inplace": True}, "inplace goes with into"),
    ],
)
def test_wrong_arguments_are_refused(saved, arguments, message):
    with saved.begin() as checkpoint, pytest.raises(CheckpointArgumentError, match=message):
        checkpoint.load(**arguments)


def test_a_damaged_checkpoint_leaves_what_is_there(saved):
    for path in saved.root.rglob("chunks/*/*"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with saved.begin() as checkpoint:
        saved.flow.alone = np.zeros(3000)
        with pytest.raises(ChunkCorruptError):
            checkpoint.load(into={"alone": saved.flow.alone})
        assert not saved.flow.alone.any()
        assert set(vars(saved.flow)) == {"alone"}


def test_files_come_along(task):
    with task.begin() as checkpoint:
        task.flow.alone = np.ones(3000)
        Path(checkpoint.directory, "log").write_text("1")
        checkpoint.save(wait=True)
    task.session.files.close()
    with task.begin() as checkpoint:
        alone = np.zeros(3000)
        checkpoint.load(into={"alone": alone})
        assert Path(checkpoint.directory, "log").read_text() == "1"
        assert alone.all()
    task.session.files.close()


def test_a_loop_that_restores_once_more_keeps_what_was_filled(task):
    def step(flow, checkpoint):
        flow.w = w = np.zeros(3000)
        if checkpoint.is_loaded:
            checkpoint.load(into={"w": w})
        for _ in checkpoint.loop(range(2), wait=True):
            flow.w += 1
        flow.w += 100  # not done yet where the second loop was
        for n in checkpoint.loop(range(3), wait=True):
            flow.w += 1
            if n == 1 and task.n == 1:
                raise ZeroDivisionError
        assert flow.w is w

    task.fail(step)
    assert set(task.run(step).w) == {105.0}


def test_a_loop_after_a_load_of_some_fields_keeps_what_was_filled(task):
    def step(flow, checkpoint):
        flow.w, flow.v = w, v = np.zeros(3000), np.zeros(3)
        if checkpoint.is_loaded:
            checkpoint.load(fields=["w"], into={"w": w})
            assert flow.v is v
        for n in checkpoint.loop(range(3), wait=True):
            flow.w += 1
            flow.v += 1
            if n == 1 and task.n == 1:
                raise ZeroDivisionError
        assert flow.w is w
        assert flow.v is not v or task.n == 1

    task.fail(step)
    flow = task.run(step)
    assert set(flow.w) == set(flow.v) == {3.0}


def test_the_guides_step_goes_on_with_its_optimizer(task):
    torch = pytest.importorskip("torch")
    (source,) = re.findall(r"^```py\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)

    def step(flow, checkpoint):
        names = {"self": flow, "current": SimpleNamespace(checkpoint=checkpoint), "torch": torch}
        exec(source.replace("loop(range(4))", "loop(range(4), wait=True)"), names | {"stop": stop})
        flow.steps = float(flow.optimizer_state["state"][0]["step"])

    def stop():
        raise ZeroDivisionError

    whole, source = source, source + "    if self.epoch == 2:\n        stop()\n"
    task.fail(step)
    source = whole
    assert task.run(step).steps == 4


def test_a_handle_loads_one_array_of_an_attribute(saved):
    with saved.begin() as checkpoint:
        handle = checkpoint.handle()
        assert sorted(handle) == ["alone", "epoch", "model"]
        assert np.array_equal(handle["model"]["w"].load(), np.arange(5000.0))
        assert list(checkpoint.handle(checkpoint.info.key, fields=["epoch"])) == ["epoch"]
        with pytest.raises(CheckpointException, match="holds no 'other'"):
            checkpoint.handle(fields=["other"])
        assert vars(saved.flow) == {}


def test_tensors_are_made_on_the_device_that_is_named(saved, monkeypatch):
    told = []

    def spy(name):
        inner = getattr(CheckpointStore, name)
        return lambda self, *args, **named: told.append(named.get("device")) or inner(self, *args, **named)

    monkeypatch.setattr(CheckpointStore, "load", spy("load"))
    monkeypatch.setattr(CheckpointStore, "handle", spy("handle"))
    with saved.begin() as checkpoint:
        checkpoint.load(device="saved")
        checkpoint.handle(device="cuda:1")
    assert told == ["saved", "cuda:1"]
