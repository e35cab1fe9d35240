"""How much of the machine a save takes, waited for or not."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ckptstore import CheckpointStore, StoreConfig
from ckptstore.codecs import ChunkCoder


class Together:
    """Counts how many threads encode at once; each waits a moment for another to come."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = 0
        self._n = 0
        self._lock = threading.Lock()
        self._met = threading.Event()
        encode = ChunkCoder.encode

        def counted(coder: ChunkCoder, *args: Any, **options: Any) -> Any:
            with self._lock:
                self._n += 1
                self.most = max(self.most, self._n)
            if self._n > 1:
                self._met.set()
            self._met.wait(0.1)
            try:
                return encode(coder, *args, **options)
            finally:
                with self._lock:
                    self._n -= 1

        monkeypatch.setattr(ChunkCoder, "encode", counted)


@pytest.mark.parametrize("url", ["local", "memory://background-share"])
def test_a_background_save_leaves_one_worker_fewer_busy_than_a_save_that_is_waited_for(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = StoreConfig(chunk_bytes=64 * 1024, encode_workers=2)
    values = {"x": np.random.default_rng(0).bytes(4 * 64 * 1024)}
    other = {"x": np.random.default_rng(1).integers(0, 255, 4 * 64 * 1024, "u1")}
    with CheckpointStore.open(str(tmp_path) if url == "local" else url, config=config) as store:
        together = Together(monkeypatch)
        store.save("c", other, wait=False).result()
        assert together.most == 1
        store.save("c", values)
        assert together.most > 1
