"""The incumbent's way: what metaflow-checkpoint's implicit mode does on a local datastore, and the package itself."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import shutil
import tempfile
from typing import Any

from bench.systems.base import System, Unavailable
from bench.workloads.compare import Values

__all__ = ["PACKAGE", "Incumbent", "IncumbentPackage"]

PACKAGE = "metaflow_extensions.obcheckpoint"
"""What the package metaflow-checkpoint installs."""
TASK = "METAFLOW_CHECKPOINT_UID"
MANIFEST = "manifest.json"


class Incumbent(System):
    """The steps of metaflow-checkpoint's implicit mode, without its decorator, card and Metaflow.

    Save: each attribute, one after another, is pickled into memory with
    `pickle.dumps` and Python's default protocol, and written to a file of its
    own in a temporary directory of the system's default place; a JSON manifest
    of the attributes goes beside them. Its default storage format ("files")
    then copies file by file into the datastore with `shutil.copy`; four small
    JSON records about the checkpoint follow, each through a temporary file and
    a rename, and the temporary directory is removed. Nothing is flushed to the
    disk, and it has no option for it.

    Load: the datastore's files are symlinked into a temporary directory, each
    is read whole and unpickled. Nothing is verified.

    Left out, all in its favour: the resolution of keys, the lineage and card
    records, and its own threads.
    """

    def save(self, values: Values) -> None:
        target = self.new_path("")
        with tempfile.TemporaryDirectory() as staging:
            fields = _write_fields(staging, values)
            os.makedirs(target)
            for name in os.listdir(staging):
                shutil.copy(os.path.join(staging, name), os.path.join(target, name))
        self._write_records(fields)

    def load(self) -> Values:
        source = self.last_path("")
        with tempfile.TemporaryDirectory() as staging:
            for name in os.listdir(source):
                os.symlink(os.path.join(source, name), os.path.join(staging, name))
            return _read_fields(staging)

    def _record_paths(self) -> list[str]:
        name = f"checkpoint-{self.n_saves}.metadata"
        return [
            os.path.join(self.directory, folder, record)
            for folder in ("artifact_metadata", "metadata")
            for record in (name, "latest")
        ]

    def _write_records(self, fields: Values) -> None:
        record = json.dumps({"name": "mfchckpt", "attempt": 0, "version_id": self.n_saves, "fields": fields})
        for path in self._record_paths():
            os.makedirs(os.path.dirname(path), exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(record)
            os.rename(temporary, path)


class IncumbentPackage(System):
    """The package itself: its `Checkpoint.save` and `Checkpoint.load` on its local datastore.

    Its release has no implicit mode: the files that this one writes, a pickle
    an attribute and a manifest, are made in a directory of the system's default
    place, as `Incumbent` makes them, and the package does all the rest. It runs
    as in a process that a task started: the variable by which it knows the task
    is set. Beside this package's extension `metaflow.Checkpoint` is ours, so
    its own class is taken from its own module.
    """

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        importlib.import_module("metaflow")
        own = f"{PACKAGE}.plugins.machine_learning_utilities"
        try:
            self._checkpoint: Any = importlib.import_module(f"{own}.checkpoints.final_api").Checkpoint
            context = importlib.import_module(f"{own}.datastore.context").datastore_context
            context.switch_context({"type": "local", "config": {"root": directory}})
        except (ImportError, AttributeError) as error:
            raise Unavailable(f"this version of metaflow-checkpoint is another one: {error}") from error
        os.environ[TASK] = "BenchFlow/1/train/1/task/scope/0"
        self._writer = self._checkpoint()
        self._last: Any = None

    def save(self, values: Values) -> None:
        with tempfile.TemporaryDirectory() as staging:
            _write_fields(staging, values)
            self._last = self._writer.save(staging)

    def load(self) -> Values:
        with tempfile.TemporaryDirectory() as staging:
            self._checkpoint().load(self._last, staging)
            return _read_fields(staging)

    def close(self) -> None:
        os.environ.pop(TASK, None)


def _write_fields(folder: str, values: Values) -> Values:
    fields = {}
    for name, value in values.items():
        pickled = pickle.dumps(value)
        with open(os.path.join(folder, name + ".pkl"), "wb") as file:
            file.write(pickled)
        fields[name] = {"format": "pickle", "filename": name + ".pkl"}
    with open(os.path.join(folder, MANIFEST), "w", encoding="utf-8") as manifest:
        json.dump({"version": 1, "fields": fields}, manifest)
    return fields


def _read_fields(folder: str) -> Values:
    with open(os.path.join(folder, MANIFEST), encoding="utf-8") as manifest:
        fields = json.load(manifest)["fields"]
    values: Values = {}
    for name, info in fields.items():
        with open(os.path.join(folder, info["filename"]), "rb") as file:
            pickled = file.read()
        values[name] = pickle.loads(pickled)
    return values
