"""Manifests whose digests are right and whose content is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest
from forge import assembled, packed, trees

from ckptstore import CheckpointStore
from ckptstore.errors import ManifestCorruptError


@pytest.mark.parametrize(
    "graph",
    [
        [["ghost", 0], []],
        [[3], []],
        [[0], [["list", [[0, 0]]]]],
        [[0], [["unknown", 1]]],
        [[0], [["array", "<f8", [10], None, 0, 0, True]]],
        [[0], [["list", [1]], ["list", [2]]]],
        [[0], [["tuple", [[0]]]]],
        "text",
        [None],
    ],
    ids=str,
)
def test_a_graph_that_lies_is_a_corrupt_manifest(graph: Any, tmp_path: Path) -> None:
    with CheckpointStore.open(str(tmp_path)) as store:
        ref = store.save("c", {"a": 1}).ref
        (path,) = (tmp_path / "manifests" / "c").glob(ref.name)
        summary, body = trees(path.read_bytes())
        forged = msgpack.packb(graph)
        body["buffers"][0][0] = forged
        for place in (summary, summary["fields"][0]):
            place["raw"] = place["stored"] = place["new"] = len(forged)
        path.write_bytes(assembled(packed(summary), packed(body)))
        with pytest.raises(ManifestCorruptError):
            store.load("c")


def test_a_damaged_header_is_named_by_inspect_list_and_load(tmp_path: Path) -> None:
    with CheckpointStore.open(str(tmp_path)) as store:
        ref = store.save("c", {"a": 1}).ref
        (path,) = (tmp_path / "manifests" / "c").glob(ref.name)
        data = bytearray(path.read_bytes())
        data[40] ^= 1
        path.write_bytes(bytes(data))
        for read in (lambda: store.inspect(ref), lambda: list(store.list("c")), lambda: store.load(ref)):
            with pytest.raises(ManifestCorruptError, match=ref.name):
                read()
