from __future__ import annotations

import io
import pickle
import warnings
from typing import Any

import pytest
from trip import LIMITS, data_bytes, dumped, trip, trip_one

from ckptstore.errors import UnserializableError

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

DTYPES = [
    "float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
    "float8_e8m0fnu", "complex32", "complex64", "complex128", "bool", "uint8", "int8", "int16", "int32", "int64",
    "uint16", "uint32", "uint64", "float4_e2m1fn_x2",
]  # fmt: skip


def raw(tensor: Any) -> bytes:
    """Return the bytes of all elements, in order."""
    return bytes(
        tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).tolist()
    )


def tensor_bytes(blocks: Any) -> int:
    """Return the bytes of the blocks that hold floats, not pickles."""
    return sum(block.view.nbytes for block in blocks if block.itemsize == 4)


def check(back: Any, tensor: Any) -> None:
    """Both tensors are the same in all that can be seen."""
    assert type(back) is type(tensor)
    assert back.dtype == tensor.dtype
    assert back.shape == tensor.shape
    assert back.stride() == tensor.stride()
    assert back.requires_grad == tensor.requires_grad
    assert back.is_conj() == tensor.is_conj()
    assert back.is_neg() == tensor.is_neg()
    assert back.device == tensor.device


@pytest.mark.parametrize("name", [name for name in DTYPES if hasattr(torch, name)])
def test_every_dtype_comes_back_exactly(name: str) -> None:
    dtype = getattr(torch, name)
    data = torch.arange(48, dtype=torch.uint8) % 2 if name == "bool" else torch.arange(48, dtype=torch.uint8)
    tensor = data.view(dtype)
    back = trip_one(tensor)
    check(back, tensor)
    assert bytes(back.view(torch.uint8).tolist()) == bytes(data.tolist())
    field = dumped({"v": tensor})["v"]
    assert field.kind == "tree"
    assert field.leaves[0].dtype == name
    assert trip_one([dtype])[0] is dtype


BASE = torch.arange(24.0).reshape(2, 3, 4)
LAYOUTS = {
    "0-d": torch.tensor(3.5),
    "empty": torch.empty(0, 3),
    "empty inside": torch.empty(3, 0, 2, dtype=torch.int16),
    "transposed": BASE.transpose(0, 2),
    "sliced": BASE[:, ::2, 1:3],
    "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
    "channels last": torch.arange(48.0).reshape(1, 3, 4, 4).to(memory_format=torch.channels_last),
    "conjugate": torch.tensor([1 + 2j, 3 - 1j]).conj(),
    "negative": torch.tensor([1 + 2j, 3 - 1j]).conj().imag,
    "real part": torch.tensor([1 + 2j, 3 - 1j]).real,
    "gradient": torch.ones(3, requires_grad=True),
    "unaligned": torch.frombuffer(bytearray(33), dtype=torch.float64, offset=1),
}


@pytest.mark.parametrize("tensor", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout_comes_back(tensor: Any) -> None:
    back = trip_one(tensor)
    check(back, tensor)
    assert torch.equal(back, tensor)
    with torch.no_grad():
        if tensor.numel() and 0 not in tensor.stride():
            back.zero_()


def test_a_parameter_comes_back_as_one() -> None:
    for grad in (True, False):
        back = trip_one(torch.nn.Parameter(torch.ones(3), requires_grad=grad))
        assert type(back) is torch.nn.Parameter
        assert back.requires_grad is grad
        assert back.is_leaf


def test_a_result_of_a_computation_comes_back_as_a_leaf() -> None:
    result = torch.ones(3, requires_grad=True) * 2
    back = trip_one(result)
    assert back.tolist() == [2.0, 2.0, 2.0]
    assert back.requires_grad
    assert back.is_leaf


def test_views_and_tied_weights_share_storage_again() -> None:
    base = torch.zeros(4, 5)
    back = trip({"a": {"base": base, "column": base[:, 1]}, "b": base[2], "tied": base.T})
    storage = back["a"]["base"].untyped_storage()
    assert all(
        tensor.untyped_storage()._cdata == storage._cdata
        for tensor in (back["a"]["column"], back["b"], back["tied"])
    )
    back["b"][1] = 7
    assert back["a"]["column"][2] == 7
    assert back["tied"][1, 2] == 7


def test_numpy_and_torch_views_of_the_same_memory_share_it_again() -> None:
    np = pytest.importorskip("numpy")
    array = np.zeros(10)
    fields = dumped({"a": array, "t": torch.from_numpy(array)[3:]})
    assert data_bytes(fields["a"]) == 80
    assert data_bytes(fields["t"]) == 0
    back = trip({"a": array, "t": torch.from_numpy(array)[3:]})
    back["t"][0] = 5
    assert back["a"][3] == 5


def test_a_small_view_of_a_huge_tensor_saves_only_its_own_range() -> None:
    base = torch.zeros(1000, 1000)
    assert data_bytes(dumped({"v": base[7]})["v"]) == 4000
    field = dumped({"v": base[:, 0]})["v"]
    assert data_bytes(field) == 4000
    assert field.blocks[0].private
    assert trip_one(base[:, 0]).shape == (1000,)


def test_blocks_are_views_of_the_tensors_own_memory() -> None:
    tensor = torch.zeros(1000)
    block = dumped({"v": tensor})["v"].blocks[0]
    assert not block.private
    assert block.itemsize == 4
    tensor += 1
    assert bytes(block.view[:4]) == b"\0\0\x80?"
    view = block.view
    del tensor, block
    assert bytes(view[-4:]) == b"\0\0\x80?"


@pytest.mark.parametrize(
    "value",
    [torch.float32, torch.device("cpu"), torch.device("cuda", 1), torch.Size([1, 2]), torch.Size([])],
    ids=str,
)
def test_dtypes_devices_and_sizes_are_plain_data(value: Any) -> None:
    assert trip_one(value) == value
    assert type(trip_one(value)) is type(value)
    assert dumped({"v": value})["v"].kind == "tree"


def test_meta_tensors_come_back_without_data() -> None:
    tensor = torch.empty(1000, 1000, device="meta", dtype=torch.bfloat16)
    field = dumped({"v": tensor})["v"]
    assert field.blocks == []
    check(trip_one(tensor), tensor)
    check(trip_one(tensor, device="cpu"), tensor)


def test_storages_come_back_and_share_with_their_tensors() -> None:
    tensor = torch.arange(6.0)
    back = trip({"t": tensor, "s": tensor.untyped_storage(), "y": tensor.untyped_storage()[4:12]})
    assert type(back["s"]) is torch.UntypedStorage
    assert back["s"].data_ptr() == back["t"].data_ptr()
    assert back["y"].nbytes() == 8
    assert back["y"].data_ptr() == back["t"].data_ptr() + 4
    typed = torch.storage.TypedStorage(
        wrap_storage=tensor.untyped_storage(), dtype=torch.float32, _internal=True
    )
    restored = trip_one(typed)
    assert type(restored) is torch.storage.TypedStorage
    assert restored.dtype == torch.float32


class Tagged(torch.Tensor):  # type: ignore[misc]
    pass


def test_what_is_more_than_elements_goes_through_pickle_without_its_bytes() -> None:
    with_attribute = torch.zeros(5000)
    with_attribute.note = {"k": 1}
    for tensor in (with_attribute, torch.zeros(5000).as_subclass(Tagged), torch.eye(1000).to_sparse()):
        field = dumped({"v": tensor})["v"]
        assert field.kind == "pickle"
        assert len(field.graph) < 2000
        assert all(block.itemsize in (1, 4, 8) for block in field.blocks)
        back = trip_one(tensor)
        assert type(back) is type(tensor)
        assert back.layout == tensor.layout
        assert torch.equal(
            back.to_dense() if back.is_sparse else back, tensor.to_dense() if tensor.is_sparse else tensor
        )
    assert trip_one(with_attribute).note == {"k": 1}


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_sparse_layouts_come_back(kind: str) -> None:
    dense = torch.tensor([[0.0, 1, 0], [2, 0, 3]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls these layouts experimental, once
        sparse = {"csr": dense.to_sparse_csr, "csc": dense.to_sparse_csc, "coo": dense.to_sparse}[kind]()
    back = trip_one(sparse)
    assert back.layout == sparse.layout
    assert torch.equal(back.to_dense(), dense)


def test_model_optimizer_and_scheduler_stay_tied_across_fields() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    values = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    fields = dumped(values)
    assert {field.kind for field in fields.values()} == {"pickle"}
    assert [leaf.path for leaf in fields["model"].leaves] == [
        "0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked",
        "2.weight", "2.bias",
    ]  # fmt: skip
    assert "torch.optim.adam.Adam" in fields["optimizer"].globals
    back = trip(values)
    assert back["scheduler"].optimizer is back["optimizer"]
    for group in back["optimizer"].param_groups:
        assert all(a is b for a, b in zip(group["params"], back["model"].parameters(), strict=True))
    before = back["model"][0].weight.detach().clone()
    back["model"](torch.randn(5, 3)).sum().backward()
    back["optimizer"].step()
    assert not torch.equal(before, back["model"][0].weight)


def test_loading_the_optimizer_alone_brings_the_parameters_and_not_the_model() -> None:
    model = torch.nn.Linear(3, 4)
    model.unrelated = torch.zeros(1000)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    fields = dumped({"model": model, "optimizer": optimizer})
    from trip import planned

    plan = planned(fields, ["optimizer"])
    assert list(plan.pickled) == ["optimizer"]
    assert tensor_bytes(fields[name].blocks[at] for name, at in plan.blocks) == 64
    assert (
        trip({"model": model, "optimizer": optimizer}, roots=["optimizer"])["optimizer"].defaults["lr"] == 0.1
    )


def test_a_state_dict_is_plain_data_and_keeps_its_metadata() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    state = model.state_dict()
    field = dumped({"state": state})["state"]
    assert field.kind == "tree"
    assert [leaf.path for leaf in field.leaves][:2] == ["['0.weight']", "['0.bias']"]
    back = trip({"state": state})["state"]
    assert back._metadata == state._metadata
    model.load_state_dict(back)


def test_tied_weights_in_a_module_are_stored_once() -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 4), "b": torch.nn.Linear(4, 4)})
    model["b"].weight = model["a"].weight
    field = dumped({"m": model})["m"]
    assert tensor_bytes([*field.blocks]) == 64 + 16 + 16
    back = trip({"m": model})["m"]
    assert back["a"].weight is back["b"].weight


def test_no_tensor_bytes_are_inside_a_pickle() -> None:
    class_state = {"m": torch.nn.Linear(300, 300), "s": [torch.nn.Embedding(100, 50, sparse=True)]}
    field = dumped({"v": class_state})["v"]
    assert len(field.graph) + sum(b.view.nbytes for b in field.blocks if b.itemsize == 1) < 4000


def test_a_tensor_whose_storage_was_freed_is_not_read() -> None:
    tensor = torch.zeros(1000)
    tensor.untyped_storage().resize_(0)
    with pytest.raises(UnserializableError):
        trip_one(tensor)


def test_a_zero_tensor_comes_back_as_zeros() -> None:
    back = trip_one(torch._efficientzerotensor(3))
    assert back.tolist() == [0, 0, 0]


def test_ten_thousand_tensors_are_dumped_quickly() -> None:
    import time

    state = {str(i): torch.zeros(10) for i in range(10_000)}
    times = []
    for _ in range(3):
        start = time.perf_counter()
        dumped({"state": state})
        times.append(time.perf_counter() - start)
    assert min(times) < 3  # 0.14 s on an idle core


def test_a_restored_tensor_pickles_like_any_other() -> None:
    back = trip_one(torch.arange(3.0))
    again = pickle.loads(pickle.dumps(back))
    assert torch.equal(again, back)
    buffer = io.BytesIO()
    torch.save(back, buffer)


def graph_of(*nodes: list[Any]) -> bytes:
    """Return the graph of a list of nodes."""
    msgpack = pytest.importorskip("msgpack")
    packed: bytes = msgpack.packb([[0], [["list", [[at + 1] for at in range(len(nodes))]], *nodes]])
    return packed


def test_only_tensors_saved_from_another_device_go_to_the_device_that_is_asked_for() -> None:
    from ckptstore.serializers import Registry, RestorePlan

    graph = graph_of(
        ["tensor", "float32", [2], None, 0, 0, "cuda:0", 3],
        ["tensor", "float32", [2], None, 0, 4, "cuda:0", 0],
        ["tensor", "float32", [2], None, 1, 0, "cpu", 0],
        ["tensor", "float32", [0], None, None, 0, "cuda:3", 0],
    )
    for device, expected in ((None, "cpu"), ("meta", "meta")):
        plan = RestorePlan(["f"], limits=LIMITS, registry=Registry())
        plan.add_graph("f", graph, [12, 8])
        blocks = {key: memoryview(bytearray(12 - 4 * key[1])) for key in plan.blocks}
        moved, beside, stays, empty = plan.build(blocks, device=device)["f"]
        assert [str(tensor.device) for tensor in (moved, beside, stays, empty)] == [
            expected,
            expected,
            "cpu",
            expected,
        ]
        assert type(moved) is torch.nn.Parameter
        assert moved.untyped_storage()._cdata == beside.untyped_storage()._cdata


def test_a_tensor_of_more_dimensions_than_the_limit_is_refused() -> None:
    from ckptstore.config import Limits
    from ckptstore.errors import LimitExceededError

    with pytest.raises(LimitExceededError, match="max_dims"):
        dumped({"v": torch.zeros([1] * 65)})
    dumped({"v": torch.zeros([1] * 3)}, limits=Limits(max_dims=3))


def test_a_dtype_that_this_torch_does_not_know_is_named() -> None:
    from ckptstore.errors import CheckpointStoreError
    from ckptstore.serializers import Registry, RestorePlan

    plan = RestorePlan(["f"], limits=LIMITS, registry=Registry())
    plan.add_graph(
        "f", graph_of(["torch.dtype", "bit"], ["tensor", "float32", [0], [5], None, 0, "cpu", 0]), []
    )
    original, torch.bit = torch.bit, None
    try:
        with pytest.raises(CheckpointStoreError, match="'bit'"):
            plan.build({})
    finally:
        torch.bit = original


@pytest.mark.parametrize("device", [None, "meta"])
def test_settings_of_torch_that_the_program_made_do_not_touch_what_comes_back(device: str | None) -> None:
    whole = torch.randn(6)
    values = [whole, whole.view(2, 3), whole[2:], torch.randn(()), torch.ones(3, dtype=torch.bool)]
    torch.use_deterministic_algorithms(True)  # fills what it takes for new memory
    torch.set_default_device(device)
    try:
        back = trip_one(values)
    finally:
        torch.set_default_device(None)
        torch.use_deterministic_algorithms(False)
    for one, tensor in zip(back, values, strict=True):
        check(one, tensor)
        assert torch.equal(one, tensor)
    assert back[0].untyped_storage().data_ptr() == back[2].untyped_storage().data_ptr()


@pytest.mark.parametrize("view_first", [False, True])
def test_a_whole_tensor_and_a_view_of_it_share_memory_whichever_comes_first(view_first: bool) -> None:
    whole = torch.arange(6.0)
    back = trip_one([whole[2:], whole] if view_first else [whole, whole[2:]])
    view, other = back if view_first else back[::-1]
    view[0] = 99
    assert other.tolist() == [0, 1, 99, 3, 4, 5]
