"""Metaflow's pluggable artifact serializers are asked before a value is pickled."""

import json
from pathlib import Path

import pytest
from metaflow import Checkpoint
from metaflow_extensions.ckptstore.plugins.checkpoint import artifact_serializers

from ckptstore.errors import UntrustedPickleError

pytestmark = pytest.mark.metaflow

pytest.importorskip("metaflow.datastore.artifacts.serializer", reason="this Metaflow is older than 2.19.26")

HERE = Path(__file__).parent
EXTENSION = str(HERE / "boxes_extension")
LOAD = """
import sys
from metaflow import Checkpoint
print("content", Checkpoint().load(sys.argv[1])["box"].content)
"""


@pytest.fixture(scope="module")
def told(run_command, tmp_path_factory):
    path = tmp_path_factory.mktemp("told") / "told.jsonl"
    ran = run_command(
        str(HERE / "flows" / "boxed.py"), "--no-pylint", "run", TOLD=str(path), PYTHONPATH=EXTENSION
    )
    assert ran.returncode == 0, ran.stdout
    facts = {}
    for line in path.read_text().splitlines():
        facts |= json.loads(line)
    return facts


def test_what_a_serializer_claims_is_saved_and_restored_through_it(told):
    assert told["box"] == ["Box", [1, 2, 3], 7]
    assert told["client"] == [1, 2, 3]
    assert told["listed"] == ["client", "mfchckpt"]
    assert told["artifact"] == [1, 2, 3]


def test_inspect_tells_the_type_and_the_serializers_format(told):
    assert [told["field"]["type"], told["field"]["format"]] == ["boxes.Box", "box-json-v1"]


def test_a_value_that_its_serializer_fails_with_is_named(told):
    assert "leaky cannot be saved by the serializer BoxSerializer" in told["leaky"]
    assert "it leaks" in told["leaky"]
    assert told["leaky_is_set"] is False


def test_outside_it_is_restored_where_the_serializer_is(told, run_command):
    ran = run_command("-c", LOAD, told["pathspec"], PYTHONPATH=EXTENSION)
    assert "content [4]" in ran.stdout


def test_where_the_serializer_is_not_the_other_fields_are_loaded_and_it_is_named(told):
    with Checkpoint() as client:
        first = client.list("mfchckpt", told["pathspec"])[0]
        assert client.load(first, fields=["number"]) == {"number": 7}
        with pytest.raises(
            Exception, match=r"box was saved as 'box-json-v1' by a serializer of .*not installed"
        ):
            client.load(first)


def test_without_trust_no_serializer_runs(told):
    with Checkpoint() as client:
        first = client.list("mfchckpt", told["pathspec"])[0]
        with pytest.raises(UntrustedPickleError, match="trusted=True"):
            client.load(first, trusted=False)


def test_a_pickle_in_a_serializers_clothes_is_not_unpickled():
    class Trap:
        def __reduce__(self):
            return print, ("trapped",)

    import pickle

    value = artifact_serializers.Serialized("pickle-v4", "Trap", {}, [pickle.dumps(Trap(), protocol=4)])
    with pytest.raises(Exception, match="not installed or not active"):
        artifact_serializers.restored({"x": value}, trusted=True)


def test_plain_values_and_arrays_are_never_handed_to_a_serializer(monkeypatch):
    import numpy as np

    class Greedy:
        TYPE = "greedy"

        @staticmethod
        def can_serialize(value):
            raise AssertionError(f"asked for {value!r}")

    monkeypatch.setattr(artifact_serializers, "_serializers", lambda: [Greedy])
    values = {"a": 1, "b": [object()], "c": np.arange(3), "d": None, "directory/x": object()}
    assert artifact_serializers.serialized(values) == values


def test_a_metaflow_without_serializers_pickles(monkeypatch):
    def absent():
        raise ModuleNotFoundError

    monkeypatch.setattr(artifact_serializers, "_module", absent)
    values = {"a": object()}
    assert artifact_serializers.serialized(values) == values
