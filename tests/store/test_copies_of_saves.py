"""What a save that is waited for copies, and that its checkpoint is whole whatever its caller does meanwhile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ckptstore import _upload

MIB = 1 << 20


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each copy that a save makes of its caller's memory."""
    sizes: list[int] = []
    copy = _upload.copy

    def counted(target: memoryview, source: memoryview) -> None:
        sizes.append(len(source))
        copy(target, source)

    monkeypatch.setattr(_upload, "copy", counted)
    return sizes


def values_of(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"weights": rng.standard_normal(2 * MIB // 8), "moments": rng.standard_normal(3 * MIB // 8)}


def test_a_save_of_what_did_not_change_copies_nothing(store: Any, copied: list[int]) -> None:
    values = values_of(0)
    store.save("c", values)
    assert sum(copied) == 5 * MIB
    copied.clear()
    saved = store.save("c", values)
    assert saved.sizes.new_bytes < 1000
    assert copied == []


def test_a_value_that_changes_while_a_save_looks_whether_it_did_is_stored_readable(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = values_of(0)
    store.save("c", values)
    digest = _upload.digest
    values["weights"][0] = 1.0  # so it is not found
    n_digests = 0

    def changing(data: memoryview) -> bytes:
        nonlocal n_digests
        n_digests += 1
        found = digest(data)
        values["weights"][1] = n_digests
        return found

    monkeypatch.setattr(_upload, "digest", changing)
    saved = store.save("c", values)
    assert n_digests > 2
    loaded = store.load(saved)  # verifies every chunk
    assert loaded["weights"][0] == 1.0
    assert loaded["weights"][1] >= 1
    assert np.array_equal(loaded["weights"][2:], values["weights"][2:])
    assert np.array_equal(loaded["moments"], values["moments"])


def test_chunks_that_did_not_change_are_found_among_ones_that_did(store: Any) -> None:
    values = {f"array{i}": np.random.default_rng(i).standard_normal(2 * MIB // 8) for i in range(6)}
    store.save("c", values)
    for name in ("array1", "array2", "array4"):
        values[name] += 1.0
    saved = store.save("c", values)
    assert 4.5 * MIB < saved.sizes.new_bytes < 6.5 * MIB
    assert all(np.array_equal(value, values[name]) for name, value in store.load(saved).items())
