"""Tensors of a GPU: when they are copied, what is waited for, and what an error leaves."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
from fake_cuda import FakeCuda, PinnedMemory, cuda
from trip import data_bytes, dumped, trip

from ckptstore.errors import CheckpointStoreError, SaveError, UnserializableError
from ckptstore.serializers import _devices, destination
from ckptstore.serializers.memory import Extent, Region, join

__all__ = ["cuda"]

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def test_copies_start_when_the_device_is_done_and_are_waited_for_once(cuda: FakeCuda) -> None:
    state = {name: cuda.place(torch.full((100,), 1.0)) for name in ("a", "b", "c")}
    fields = dumped({"state": state})
    assert cuda.log == ["settle cuda:0", "pin 1344", "copy 400", "copy 400", "copy 400", "finish cuda:0"]
    assert [bytes(block.view) for block in fields["state"].blocks] == [
        torch.full((100,), 1.0).numpy().tobytes()
    ] * 3


def test_what_was_queued_before_is_saved_and_what_changes_later_is_not(cuda: FakeCuda) -> None:
    weights = cuda.place(torch.zeros(1000))
    cuda.queue(lambda: weights.fill_(7))
    block = dumped({"w": weights})["w"].blocks[0]
    weights.fill_(-1)
    assert set(torch.frombuffer(bytearray(block.view), dtype=torch.float32).tolist()) == {7.0}
    assert block.private
    assert block.itemsize == 4


def test_views_tied_weights_and_storages_are_copied_once_and_stay_tied(cuda: FakeCuda) -> None:
    base = cuda.place(torch.arange(600.0).reshape(20, 30))
    values = {
        "rows": [base[3:9], base[5:20], base[7]],
        "tied": {"weight": torch.nn.Parameter(base), "t": base.T},
        "s": base.untyped_storage(),
    }
    made = trip(values)
    assert sum(int(step.split()[1]) for step in cuda.log if step.startswith("copy")) == 2400
    storage = made["s"]._cdata
    tensors = [*made["rows"], *made["tied"].values()]
    assert all(tensor.untyped_storage()._cdata == storage for tensor in tensors)
    expected = [*values["rows"], *values["tied"].values()]
    assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(tensors, expected, strict=True))
    assert type(made["tied"]["weight"]) is torch.nn.Parameter


def test_ranges_that_overlap_in_part_are_joined_without_a_second_copy(cuda: FakeCuda) -> None:
    base = cuda.place(torch.arange(100, dtype=torch.uint8))
    values = {"a": base[0:50], "b": base[40:70], "c": base[45:60]}
    made = trip(values)
    assert [step for step in cuda.log if step.startswith("copy")] == ["copy 50", "copy 20"]
    assert all(torch.equal(made[name], value) for name, value in values.items())


def test_a_lone_view_with_wide_gaps_brings_its_elements_alone(cuda: FakeCuda) -> None:
    base = cuda.place(torch.arange(1_000_000.0).reshape(1000, 1000))
    column = base[:, 7]
    assert data_bytes(dumped({"v": column})["v"]) == 4000
    assert torch.equal(trip({"v": column})["v"], column)
    assert "copy 4000" in cuda.log


def test_a_lone_view_with_gaps_needs_no_memory_on_a_full_device(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = cuda.place(torch.arange(1_000_000.0).to(torch.bfloat16).reshape(1000, 1000))
    contiguous = torch.Tensor.contiguous

    def full(tensor: Any) -> Any:
        if cuda.space_of(tensor):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return contiguous(tensor)

    monkeypatch.setattr(torch.Tensor, "contiguous", full)
    monkeypatch.setattr(torch.Tensor, "cpu", torch.Tensor.clone)
    made = trip({"v": base[3:900:2, 7]})["v"]
    assert made.stride() == (1,)
    assert torch.equal(made, base[3:900:2, 7])


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
        lambda: torch.arange(40).to(torch.bfloat16)[::3],
        lambda: torch.complex(torch.arange(6.0), torch.ones(6)).conj(),
        lambda: torch.complex(torch.arange(6.0), torch.ones(6)).conj().imag,
        lambda: torch.tensor(True),
        lambda: torch.zeros(3, 0),
        lambda: torch.ones(3).expand(2, 3),
    ],
    ids=["permuted", "bf16 steps", "conj", "neg", "0-d", "empty", "expanded"],
)
def test_every_layout_comes_trip(cuda: FakeCuda, make: Any) -> None:
    tensor = cuda.place(make())
    made = trip({"v": tensor})["v"]
    assert torch.equal(made, tensor)
    assert (made.dtype, made.stride(), made.is_conj(), made.is_neg()) == (
        (tensor.dtype, tensor.stride(), tensor.is_conj(), tensor.is_neg())
    )


def test_devices_copy_at_the_same_time_and_tensors_of_this_process_are_not_copied(cuda: FakeCuda) -> None:
    here = torch.ones(100)
    fields = dumped(
        {
            "one": cuda.place(torch.ones(16), "cuda:0"),
            "two": cuda.place(torch.ones(32), "cuda:1"),
            "here": here,
        }
    )
    assert cuda.log == [
        "settle cuda:0", "pin 64", "copy 64", "settle cuda:1", "pin 128", "copy 128", "finish cuda:1", "finish cuda:0",
    ]  # fmt: skip
    assert not fields["here"].blocks[0].private
    here.fill_(5)
    assert bytes(fields["here"].blocks[0].view) == here.numpy().tobytes()


def test_nothing_is_asked_of_a_device_for_values_without_tensors_there(cuda: FakeCuda) -> None:
    dumped({"v": [torch.ones(3), torch.ones(3, device="meta"), b"x" * 1000]})
    assert cuda.log == []


def test_memory_that_cannot_be_pinned_is_replaced_by_other(cuda: FakeCuda) -> None:
    cuda.pinned_left = 0
    values = {"a": cuda.place(torch.arange(1000.0)), "b": cuda.place(torch.ones(3))}
    made = trip(values)
    assert all(torch.equal(made[name], value) for name, value in values.items())
    assert cuda.log == ["settle cuda:0", "finish cuda:0"]


def test_a_copy_that_fails_is_blamed_on_its_tensor_and_leaves_nothing_behind(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[weakref.ref[Any]] = []

    def remembered(nbytes: int) -> Any:
        memory = cuda.pinned(nbytes)
        pinned.append(weakref.ref(memory))
        return memory

    monkeypatch.setattr(_devices, "_pinned", remembered)
    state = {"fine": [cuda.place(torch.ones(500))], "bad": [0, cuda.place(torch.ones(10))]}
    cuda.fail = "copy 40"
    with pytest.raises(UnserializableError) as caught:
        dumped({"before": 1, "state": state})
    error = caught.value
    assert (error.field, error.path, error.type_name) == ("state", "state['bad'][1]", "torch.Tensor")
    assert "cannot be copied from cuda:0, RuntimeError: CUDA error: injected" in str(error)
    assert type(error.__cause__) is RuntimeError
    # What the device still wrote to was waited for before it was given back.
    assert cuda.log[-1] == "finish cuda:0"
    assert _devices._side_stream("cuda:0").copies == []
    del caught, error
    assert [memory() for memory in pinned] == [None]


@pytest.mark.parametrize("step", ["settle cuda:0", "finish cuda:0"])
def test_a_device_that_fails_is_named(cuda: FakeCuda, step: str) -> None:
    cuda.fail = step
    with pytest.raises(
        SaveError, match="the tensors on cuda:0 cannot be saved: RuntimeError: CUDA error"
    ) as caught:
        dumped({"v": cuda.place(torch.ones(10)), "w": cuda.place(torch.ones(10), "cuda:1")})
    assert type(caught.value.__cause__) is RuntimeError
    assert cuda.log.count("finish cuda:1") == (step == "finish cuda:0")


def test_a_device_of_another_kind_is_waited_for_and_copied_from(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch.xpu, "synchronize", lambda: asked.append("module"))
    link = _devices.link_to("xpu:1")
    assert not isinstance(link, _devices.CudaLink)
    link.settle()
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "synchronize", asked.append)
    link.settle()
    assert asked == ["module", torch.device("xpu:1")]

    source = torch.arange(10, dtype=torch.uint8)
    extent = Extent(100, 10, owner=source, width=2, space="xpu:1")
    extent.source = lambda: source
    join([extent])
    assert extent.region is not None
    _devices.fetch([extent.region], copy_failed=unexpected, device_failed=unexpected)
    block = extent.region.block()
    assert (bytes(block.view), block.itemsize, block.private) == (bytes(range(10)), 2, True)


def unexpected(_: object, exc: Exception) -> Exception:
    return exc


def region(nbytes: int) -> Region:
    """Return a region of that size on another device."""
    extent = Extent(0, nbytes, owner=None, width=1, space="cuda:0")
    join([extent])
    assert extent.region is not None
    return extent.region


MIB = 1024**2
LAYER = [4096 * 4096 * 2] * 4 + [4096 * 11008 * 2] * 3 + [8192] * 2
SIZES = {
    "small": [40] * 10_000,
    "one": [5 * MIB],
    "model": [32000 * 4096 * 2] * 2 + LAYER * 32,
    "above a power of two": [1100 * MIB] * 10,
    "mixed": [MIB * n + 1 for n in range(200)],
    "larger than a piece": [9000 * MIB, 100, 200],
}


@pytest.mark.parametrize("name", SIZES)
def test_every_region_has_a_place_of_its_own_in_few_pieces_and_little_is_pinned_in_vain(name: str) -> None:
    regions = [region(nbytes) for nbytes in SIZES[name]]
    placed: list[Region] = []
    pinned = n_pieces = 0
    for nbytes, places in _devices.shared_out(regions):
        n_pieces += 1
        pinned += 1 << (nbytes - 1).bit_length()
        end = 0
        for held, at in places:
            assert at >= end
            assert at % 64 == 0
            end = at + held.nbytes
            placed.append(held)
        assert end <= nbytes
    assert {id(held) for held in placed} == {id(held) for held in regions}
    assert len(placed) == len(regions)
    total = sum(-(-held.nbytes // 64) * 64 for held in regions)
    lone = name in ("one", "larger than a piece")
    assert pinned <= total * (2 if lone else 1.34) + MIB
    assert n_pieces <= 12 + total // (4096 * MIB) * 2


def test_a_tensor_is_filled_after_what_was_queued_for_it(cuda: FakeCuda) -> None:
    weights = cuda.place(torch.zeros(10))
    cuda.queue(lambda: weights.fill_(7))
    destination.copy(weights, torch.ones(10))
    assert weights.tolist() == [1.0] * 10
    assert cuda.log == ["settle cuda:0", "settle cuda:0"]


def test_the_saved_device_is_where_tensors_go_back_to(cuda: FakeCuda) -> None:
    base = cuda.place(torch.arange(12.0), "meta")
    values = {"there": [base[:6], base[3:]], "here": torch.ones(3)}
    made = trip(values, device="saved")
    assert [str(tensor.device) for tensor in (*made["there"], made["here"])] == ["meta", "meta", "cpu"]
    assert made["there"][0].untyped_storage()._cdata == made["there"][1].untyped_storage()._cdata
    assert torch.equal(trip(values)["there"][1], base[3:])


@pytest.mark.parametrize(
    "make", [lambda: torch.ones(3), lambda: torch.ones(0), lambda: torch.ones(3).untyped_storage()]
)
@pytest.mark.parametrize("device", ["saved", "cuda", "nonsense"])
def test_a_device_that_does_not_take_tensors_is_no_damage_of_the_checkpoint(
    cuda: FakeCuda, make: Any, device: str
) -> None:
    value = make()
    cuda.place(value, "cuda:5")
    with pytest.raises(CheckpointStoreError) as caught:
        trip({"v": value}, device=device)
    target = "cuda:5" if device == "saved" else device
    assert type(caught.value) is CheckpointStoreError
    assert f"tensors cannot go to the device {target!r}: " in str(caught.value)


def test_the_fake_notices_who_does_not_wait(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_devices.CudaLink, "settle", lambda self: None)
    monkeypatch.setattr(_devices.CudaLink, "finish", lambda self: None)
    weights = cuda.place(torch.zeros(10))
    cuda.queue(lambda: weights.fill_(7))
    block = dumped({"w": weights + 0, "v": weights})["v"].blocks[0]
    assert not any(block.view)
    assert PinnedMemory.cuda is cuda
    cuda.synchronize("cuda:0")
    _devices._side_stream("cuda:0").synchronize()
    assert any(block.view)
