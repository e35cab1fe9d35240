"""Run as a script: saves without end on a disk whose power will be cut, and tells what is durable.

    python saving_on_a_disk.py FOLDER [MUTANT]

The mutants leave flushes out: ``directories`` or ``chunks``.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from ckptstore import CheckpointStore, StoreConfig, last
from ckptstore.backends import _unsynced, local
from ckptstore.errors import SaveExpiredError

GRACE_S = 4.0
KEPT = 4


def config(**options: Any) -> StoreConfig:
    return StoreConfig(
        chunk_bytes=4096,
        inline_bytes=64,
        encode_workers=2,
        grace_s=GRACE_S,
        exclusive=True,  # a short grace, so that what was deleted goes for good as well
        **options,
    )


def values(n: int) -> dict[str, Any]:
    return {"n": n, "same": np.arange(2000), "new": np.random.default_rng(n).standard_normal(1500)}


def is_values(loaded: dict[str, Any]) -> bool:
    return all(np.array_equal(loaded[name], value) for name, value in values(loaded["n"]).items())


def close_only(unsynced: Any, key: str, fd: int, event: Any) -> None:
    """Do what ``_flush_file`` does, but the flush."""
    os.close(fd)
    with unsynced._lock:
        del unsynced._flushing[key]
    event.set()


def leave_out(mutant: str) -> None:
    if mutant == "directories":
        local.LocalBackend._flush_folder = lambda *args: None  # type: ignore[method-assign]
        _unsynced.UnsyncedFiles._flush_directory = lambda *args: None  # type: ignore[method-assign]
    elif mutant == "chunks":
        _unsynced.UnsyncedFiles._flush_file = close_only  # type: ignore[method-assign]
        # With the hint to write soon, ext4's next flush of anything brings the bytes along.
        local.start_write_back = lambda fd: None


def main(folder: str, mutant: str = "") -> None:
    leave_out(mutant)
    store = CheckpointStore.open(folder, config=config())
    n = 0
    while True:
        try:
            store.save("c", values(n), wait=False, keep=last(KEPT)).result(60)
        except SaveExpiredError:  # we stood still for too long while an image was taken
            continue
        os.write(1, f"{n}\n".encode())
        n += 1
        if n % 20 == 0:
            store.collect_garbage(force=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
