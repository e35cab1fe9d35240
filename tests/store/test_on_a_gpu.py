"""Tensors on a real GPU, saved while it works and loaded back, bit by bit. Skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ckptstore import CheckpointStore, StoreConfig

torch: Any = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]

GPU = "cuda:0"


@pytest.fixture
def store() -> Iterator[CheckpointStore]:
    with CheckpointStore.open("memory://", config=StoreConfig(chunk_bytes=1024**2)) as opened:
        yield opened


def busy() -> None:
    """Keep the current stream from its next kernel for about a tenth of a second."""
    torch.cuda._sleep(200_000_000)


def state() -> dict[str, Any]:
    """Return tensors of many kinds; some share memory, and one is a column of a large table."""
    torch.manual_seed(1)
    base = torch.randn(1000, 300, device=GPU)
    table = torch.randn(2000, 3000, device=GPU)
    return {
        "weight": torch.nn.Parameter(base),
        "tied": base,
        "rows": base[10:20],
        "turned": base.T,
        "steps": base[::7, 3:50:5],
        "column": table[:, 5],
        "bf16": torch.randn(999, device=GPU).to(torch.bfloat16),
        "conj": torch.randn(77, device=GPU, dtype=torch.complex64).conj(),
        "flags": torch.randn(55, device=GPU) > 0,
        "scalar": torch.tensor(3, device=GPU),
        "none": torch.empty(0, 4, device=GPU),
        "large": torch.randn(6_000_001, device=GPU),
        "many": [torch.full((n,), float(n), device=GPU) for n in range(1, 300)],
        "here": torch.randn(50),
    }


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """Return all tensors of a state by name."""
    many = {f"many {at}": tensor for at, tensor in enumerate(values["many"])}
    return {name: tensor for name, tensor in values.items() if name != "many"} | many


def bits(tensor: Any) -> bytes:
    """Return the elements of a tensor as bytes, in order."""
    settled = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return bytes(settled.view(torch.uint8).numpy())


def all_bits(values: dict[str, Any]) -> dict[str, bytes]:
    return {name: bits(tensor) for name, tensor in flat(values).items()}


def spoil(values: dict[str, Any]) -> None:
    """Change every tensor."""
    with torch.no_grad():
        for tensor in flat(values).values():
            tensor.zero_()


@pytest.mark.parametrize("on_side_stream", [False, True], ids=["default stream", "other stream"])
@pytest.mark.parametrize("wait", [True, False], ids=["durable", "background"])
def test_a_save_holds_what_the_gpu_was_told_before_it_and_nothing_later(
    store: Any, on_side_stream: bool, wait: bool
) -> None:
    values = state()
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream() if on_side_stream else torch.cuda.current_stream()):
        busy()
        with torch.no_grad():
            values["large"].mul_(2)
            values["weight"].add_(1)
        saved = store.save("c", {"state": values}, wait=wait)
        kept = {name: tensor.detach().clone() for name, tensor in flat(values).items()}
        spoil(values)
        torch.cuda.synchronize()
    if not wait:
        saved.result()
    loaded = store.load("c")["state"]
    assert all_bits(loaded) == {name: bits(tensor) for name, tensor in kept.items()}


@pytest.mark.parametrize("device", ["saved", "cuda", GPU])
def test_tensors_come_back_to_the_gpu_and_share_what_they_shared(store: CheckpointStore, device: str) -> None:
    values = state()
    expected = all_bits(values)
    store.save("c", {"state": values})
    loaded = store.load("c", device=device)["state"]
    assert all_bits(loaded) == expected
    assert {str(tensor.device) for tensor in flat(loaded).values()} == {GPU, "cpu"}
    assert str(loaded["here"].device) == "cpu"
    assert type(loaded["weight"]) is torch.nn.Parameter
    shared = [
        loaded[name].untyped_storage().data_ptr() for name in ("weight", "tied", "rows", "turned", "steps")
    ]
    assert len(set(shared)) == 1
    assert all(
        a.stride() == b.stride()
        for name, a in flat(loaded).items()
        if name != "column"
        for b in [flat(values)[name]]
    )


def test_without_a_device_tensors_come_back_on_the_cpu(store: CheckpointStore) -> None:
    values = state()
    store.save("c", {"state": values})
    loaded = store.load("c")["state"]
    assert {str(tensor.device) for tensor in flat(loaded).values()} == {"cpu"}
    assert all_bits(loaded) == all_bits(values)


@pytest.mark.parametrize("device", [None, "cuda"])
@pytest.mark.parametrize("inplace", [False, True])
def test_tensors_on_the_gpu_are_filled_where_they_are(
    store: CheckpointStore, inplace: bool, device: str | None
) -> None:
    values = state()
    expected = all_bits(values)
    store.save("c", {"state": values})
    places = {name: tensor.data_ptr() for name, tensor in flat(values).items()}
    with torch.cuda.stream(torch.cuda.Stream()):
        busy()
        spoil(values)  # still under way when the load comes to fill them
        loaded = store.load("c", into={"state": values}, inplace=inplace, device=device)["state"]
        assert loaded is values
        assert all_bits(values) == expected
    assert {name: tensor.data_ptr() for name, tensor in flat(values).items()} == places


def test_pinned_memory_is_used_again_by_the_next_save(store: CheckpointStore) -> None:
    values = state()
    for _ in range(2):  # the second may begin before the first has given its memory back
        store.save("c", {"state": values})
    before = torch.cuda.host_memory_stats()["num_host_alloc"]
    for _ in range(3):
        values["large"].add_(1)
        store.save("c", {"state": values})
    assert torch.cuda.host_memory_stats()["num_host_alloc"] == before
