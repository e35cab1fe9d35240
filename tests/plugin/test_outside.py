"""Checkpoint: what a notebook, a script and the processes of a task do with checkpoints."""

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest
from metaflow import Checkpoint, CheckpointArtifact, Run, namespace

from ckptstore.errors import StoreClosedError

pytestmark = pytest.mark.metaflow


@pytest.fixture(scope="module")
def ran(run_flow):
    return run_flow("outside")


@pytest.fixture
def client():
    with Checkpoint() as opened:
        yield opened


def test_what_a_task_and_its_processes_save_in_turn_is_listed_in_that_order(ran):
    names = [name for name, _ in ran.told["order"]]
    before = ["task", "child", "task", "fork", "fork of self", "fork at its end", "mfchckpt", "unclosed"]
    assert names[6:] == before[::-1]
    assert sorted(names[:6]) == ["together 0"] * 3 + ["together 1"] * 3
    assert {attempt for _, attempt in ran.told["order"]} == {0}
    assert ran.told["mine"] == names
    assert ran.told["fork"] == 0
    assert ran.told["together"] == [0, 0]


def test_a_process_of_a_task_reads_its_line_and_saves_values_and_files(ran):
    assert ran.told["child"] == ["task", 0, 0, ["child.txt", "notes.txt"]]


def test_what_a_process_cannot_save_is_named(ran):
    assert "deep[1]['x']" in ran.told["unsaved"]
    assert "self" not in ran.told["unsaved"]
    assert "there is nothing to save" in ran.told["nothing"]
    assert "'1' is none" in ran.told["no_name"]
    assert "current.checkpoint.save()" in ran.told["of_flow"]


def test_a_running_task_is_read_from_outside(ran):
    count, version, error = ran.told["running"]
    assert [count, version] == [14, 1]
    assert "Checkpoint().list(task=...)" in error


def test_a_step_without_checkpoint_reads_and_does_not_save(ran):
    assert ran.told["unmarked_reads"] == {"number": 2}
    assert "step with @checkpoint" in ran.told["unmarked_save"]
    assert "list(task=...)" in ran.told["unmarked_list"]


def test_a_task_a_step_and_a_run_are_listed_newest_first(ran, client):
    task = ran.run["start"].task
    wanted = [name for name, _ in ran.told["order"]]
    for what in (task, task.pathspec, ran.run["start"], ran.run["start"].pathspec, ran.run, ran.run.pathspec):
        assert [one.name for one in client.list(task=what)] == wanted
    assert client.list(task=ran.run["unmarked"]) == []
    assert [one.name for one in client.list("child", task, attempt=0)] == ["child"]
    assert client.list(task=task, attempt=1) == []


def test_a_task_of_another_namespace_is_read(ran, client):
    try:
        namespace("user:somebody")
        assert len(client.list(task=ran.told["pathspec"])) == 14
        assert len(client.list(task=ran.run.pathspec)) == 14
    finally:
        namespace("user:ada")


def test_every_kind_of_reference_loads_the_same(ran, client):
    found = client.list("task", ran.told["pathspec"])[0]
    for reference in (found, found.to_dict(), found.key, ran.run["unmarked"].task.data.found):
        assert client.load(reference, fields=["number", "by"]) == {"number": 2, "by": "task"}


def test_a_task_stands_for_its_newest(ran, client):
    task = ran.run["start"].task
    newest = client.list(task=task)[0]
    for reference in (task, task.pathspec):
        assert client.load(reference) == client.load(newest)
        assert client.inspect(reference) == newest.implicit_manifest


def test_load_sets_all_attributes_of_an_object_or_none(ran, client):
    class Model:
        number = 0
        __slots__ = ("by",)

    class Any:
        pass

    found = client.list("task", ran.told["pathspec"])[0]
    model = Any()
    model.number = 7
    values = client.load(found, onto=model)
    assert vars(model).keys() == values.keys() == {"number", "weights", "by"}
    assert np.array_equal(model.weights, np.arange(1000.0))
    slotted = Model()
    slotted.by = "before"
    with pytest.raises(Exception, match="attribute 'number' of Model cannot be set, so nothing was changed"):
        client.load(found, fields=["by", "number"], onto=slotted)
    assert slotted.by == "before"


def test_a_handle_loads_one_array_while_the_client_is_open(ran):
    with Checkpoint() as client:
        handle = client.handle(client.list("task", ran.told["pathspec"])[0])
        assert sorted(handle) == ["by", "number", "weights"]
        part = handle["weights"]
        assert np.array_equal(part.load(), np.arange(1000.0))
    with pytest.raises(StoreClosedError):
        part.load()


def test_load_writes_files_into_a_new_or_empty_directory(ran, client, tmp_path):
    found = client.list("task", ran.told["pathspec"])[0]
    assert client.load(found, tmp_path / "new" / "deep") == {}
    assert (tmp_path / "new" / "deep" / "notes.txt").read_text() == "kept"
    (tmp_path / "empty").mkdir()
    client.load(found.key, str(tmp_path / "empty"))
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["notes.txt"]
    with pytest.raises(ValueError, match="is not an empty directory"):
        client.load(found, tmp_path / "empty")
    with pytest.raises(Exception, match="holds no files"):
        client.load(client.list("fork", ran.told["pathspec"])[0], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_directory_holds_what_was_loaded_last_and_goes_with_the_block(ran, tmp_path):
    with Checkpoint(temp_dir_root=str(tmp_path), init_dir=True) as client:
        newest = client.list("child", ran.told["pathspec"])[0]
        client.load(newest)
        files = Path(client.directory)
        assert {path.name for path in files.iterdir()} == {"notes.txt", "child.txt"}
        client.load(client.list("task", ran.told["pathspec"])[-1])
        assert {path.name for path in files.iterdir()} == {"notes.txt"}
        assert list(tmp_path.iterdir()) != []
    assert list(tmp_path.iterdir()) == []
    with Checkpoint() as client:
        client.load(newest)
        assert Path(client.directory, "child.txt").read_text() == "of the child"


def test_an_artifact_tells_its_manifest_anywhere(ran, client):
    artifact = CheckpointArtifact.hydrate(client.list("task", ran.told["pathspec"])[0].to_dict())
    fields = artifact.implicit_manifest["fields"]
    assert fields["weights"]["leaves"][0]["shape"] == [1000]


def test_two_checkpoints_are_told_apart(ran, client):
    second, first = client.list("task", ran.told["pathspec"])
    assert client.diff(first, second) == client.diff(first.key, second.to_dict())


def test_a_checkpoint_is_deleted_and_comes_back(ran, client):
    one = client.list("fork", ran.told["pathspec"])[0]
    client.delete(one)
    assert client.list("fork", ran.told["pathspec"]) == []
    client.undelete(one)
    client.pin(one)
    client.unpin(one)
    assert client.list("fork", ran.told["pathspec"]) == [one]


def test_it_works_where_an_event_loop_is_running(ran):
    async def cell():
        client = Checkpoint()
        found = client.list(task=Run(ran.run.pathspec)["start"].task)
        return client.load(found[-1], fields=["number"])

    assert asyncio.run(cell()) == {"number": 0}


def test_an_object_that_is_gone_leaves_no_thread(ran):
    assert Checkpoint().list(task=ran.told["pathspec"])
    left = [thread for thread in threading.enumerate() if thread.name.startswith("ckptstore-loop")]
    for thread in left:
        thread.join(10)
    assert not [thread.name for thread in left if thread.is_alive()]


def test_without_trust_plain_data_is_loaded_and_a_pickle_is_refused(ran, client):
    found = client.list("task", ran.told["pathspec"])[0]
    assert client.load(found, trusted=False)["number"] == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda client: client.list(), "list(task=...)"),
        (lambda client: client.list(full_namespace=True), "list(task=...)"),
        (lambda client: client.list(task="Flow"), "task must be a Task, a Step, a Run"),
        (lambda client: client.list(task="Outside/9"), "there is no Outside/9"),
        (lambda client: client.list(task="a/1/b/2", full_namespace=True), "mutually exclusive"),
        (lambda client: client.list(attempt="0"), "attempt must be a number"),
        (lambda client: client.load("a/1/b/2"), "saved no checkpoint"),
        (lambda client: client.load("nonsense"), "is not the key of a checkpoint"),
        (lambda client: client.load({}), "is not the dict of a checkpoint"),
        (lambda client: client.load("a/1/b/2", "x", fields=["y"]), "path is for files"),
        (lambda client: client.save({"a": 1}), "for a step with @checkpoint"),
        (lambda client: client.save("/nowhere"), "there is no file or directory"),
        (lambda client: Checkpoint(datastore="floppy").list(), "'floppy' datastore, which is not installed"),
    ],
)
def test_what_is_wrong_is_said(client, call, message):
    with pytest.raises(Exception) as raised:  # noqa: PT011
        call(client)
    assert message in str(raised.value)


def test_another_datastore_is_read_on_demand(ran, tmp_path):
    task = ran.told["pathspec"]
    key = Checkpoint().list(task=task)[0].key
    root = ran.run["start"].task.metadata_dict["ds-root"]
    with Checkpoint(datastore="local", datastore_root=root) as client:
        assert client.load(key) == client.load(task)
    with Checkpoint(datastore_root=str(tmp_path)) as client, pytest.raises(LookupError):
        client.load(key)
