"""The incumbent's way: what metaflow-checkpoint's implicit mode does on a local datastore."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile

from bench.systems.base import System
from bench.workloads.compare import Values

__all__ = ["Incumbent"]

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
        fields = {}
        with tempfile.TemporaryDirectory() as staging:
            for name, value in values.items():
                pickled = pickle.dumps(value)
                with open(os.path.join(staging, name + ".pkl"), "wb") as file:
                    file.write(pickled)
                fields[name] = {"format": "pickle", "filename": name + ".pkl"}
            with open(os.path.join(staging, MANIFEST), "w", encoding="utf-8") as manifest:
                json.dump({"version": 1, "fields": fields}, manifest)
            os.makedirs(target)
            for name in os.listdir(staging):
                shutil.copy(os.path.join(staging, name), os.path.join(target, name))
        self._write_records(fields)

    def load(self) -> Values:
        source = self.last_path("")
        values: Values = {}
        with tempfile.TemporaryDirectory() as staging:
            for name in os.listdir(source):
                os.symlink(os.path.join(source, name), os.path.join(staging, name))
            with open(os.path.join(staging, MANIFEST), encoding="utf-8") as manifest:
                fields = json.load(manifest)["fields"]
            for name, info in fields.items():
                with open(os.path.join(staging, info["filename"]), "rb") as file:
                    pickled = file.read()
                values[name] = pickle.loads(pickled)
        return values

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
