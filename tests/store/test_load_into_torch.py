"""Loads into tensors and modules: they take the values and stay the objects that an optimizer knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ckptstore import CheckpointStore, StoreConfig
from ckptstore.errors import DestinationError
from ckptstore.serializers import destination

torch = pytest.importorskip("torch")
nn = torch.nn

MODES = pytest.mark.parametrize("inplace", [False, True], ids=["staged", "inplace"])


class Tied(nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self, fill: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(50, 50), nn.Linear(50, 50)
        self.second.weight = self.first.weight
        self.register_buffer("kept", torch.full((3,), fill), persistent=False)
        nn.init.constant_(self.first.weight, fill)


def network(seed: int) -> Any:
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(60, 80), nn.BatchNorm1d(80), nn.ReLU(), nn.Linear(80, 3))
    made(torch.randn(4, 60))  # the running mean moves
    return made


@pytest.fixture
def store() -> Iterator[CheckpointStore]:
    with CheckpointStore.open("memory://", config=StoreConfig(chunk_bytes=16384)) as opened:
        yield opened


def equal(a: Any, b: Any) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)


@MODES
@pytest.mark.parametrize("whole", [True, False], ids=["module", "state_dict"])
def test_a_module_takes_a_saved_module_or_state_dict(
    store: CheckpointStore, inplace: bool, whole: bool
) -> None:
    saved, own = network(1), network(2)
    optimizer = torch.optim.Adam(own.parameters())
    tensors = [(tensor, tensor.data_ptr()) for tensor in (*own.parameters(), *own.buffers())]
    store.save("c", {"model": saved if whole else saved.state_dict(), "epoch": 3})
    loaded = store.load("c", into={"model": own}, inplace=inplace)
    assert loaded["model"] is own
    assert loaded["epoch"] == 3
    assert equal(own, saved)
    now = [*own.parameters(), *own.buffers()]
    assert all(a is b and a.data_ptr() == at for a, (b, at) in zip(now, tensors, strict=True))
    assert all(parameter.requires_grad for parameter in own.parameters())
    own(torch.randn(4, 60)).sum().backward()
    optimizer.step()


@MODES
def test_modules_inside_containers_are_filled(store: CheckpointStore, inplace: bool) -> None:
    saved, own = {"net": [network(1)], "n": 1}, {"net": [network(2)], "n": 2}
    store.save("c", {"x": saved})
    store.load("c", into={"x": own}, inplace=inplace)
    assert equal(own["net"][0], saved["net"][0])  # type: ignore[index]
    assert own["n"] == 1


@MODES
def test_a_module_that_does_not_fit_is_told_by_its_names(store: CheckpointStore, inplace: bool) -> None:
    store.save("c", {"model": network(1), "state": network(1).state_dict()})
    own = nn.Sequential(
        nn.Linear(60, 80), nn.BatchNorm1d(80).double(), nn.ReLU(), nn.Linear(80, 4, bias=False)
    )
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    for field in ("model", "state"):
        with pytest.raises(DestinationError) as caught:
            store.load("c", into={field: own}, fields=[field], inplace=inplace)
        message = str(caught.value)
        assert "at '1.weight': torch float64 (80,) here, torch float32 (80,) in the checkpoint" in message
        assert "at '3.weight': torch float32 (4, 80) here, torch float32 (3, 80) in the checkpoint" in message
        assert "undefined" not in message
    assert "no parameter or buffer '3.bias' here, and there is in the checkpoint" in message
    own = nn.Sequential(nn.Linear(60, 80), nn.BatchNorm1d(80), nn.ReLU(), nn.Linear(80, 3, bias=False))
    for field in ("model", "state"):
        with pytest.raises(DestinationError, match=r"no parameter or buffer '3.bias' here"):
            store.load("c", into={field: own}, fields=[field])
    for name, tensor in before.items():
        assert name == "3.weight" or tensor.shape == own.state_dict()[name].shape
    with pytest.raises(
        DestinationError, match="Sequential here, neither array nor container in the checkpoint"
    ):
        store.load(store.save("d", {"model": 3}), into={"model": own})


@MODES
def test_tied_weights_stay_tied_and_buffers_that_are_left_out_stay(
    store: CheckpointStore, inplace: bool
) -> None:
    saved, own = Tied(1), Tied(2)
    store.save("c", {"model": saved.state_dict()})
    store.load("c", into={"model": own}, inplace=inplace)
    assert own.second.weight is own.first.weight
    assert (own.first.weight == 1).all()
    assert (own.kept == 2).all()
    store.save("whole", {"model": Tied(4)})
    store.load("whole", into={"model": own}, inplace=inplace, trusted=True)
    assert own.second.weight is own.first.weight
    assert (own.first.weight == 4).all()
    assert (own.kept == 4).all()
    torn = Tied(3)
    torn.second.weight = nn.Parameter(torch.zeros(50, 50))
    store.save("torn", {"model": torn.state_dict()})
    with pytest.raises(
        DestinationError, match=r"shares memory with field 'model' at '(first|second).weight'"
    ):
        store.load("torn", into={"model": own})
    assert (own.first.weight == 4).all()


@MODES
def test_tensors_of_every_kind_are_filled(store: CheckpointStore, inplace: bool) -> None:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    saved = {
        "bf16": base.bfloat16(),
        "bool": base > 5,
        "t": base.t(),
        "conj": torch.complex(base, base).conj(),
        "complex": torch.complex(base, base),
        "scalar": torch.tensor(3),
        "parameter": nn.Parameter(base.clone()),
        "empty": torch.zeros(0, 3),
    }
    own = {
        "bf16": torch.zeros(4, 6, dtype=torch.bfloat16),
        "bool": torch.zeros(4, 6, dtype=torch.bool),
        "t": torch.zeros(6, 4),
        "conj": torch.zeros(4, 6, dtype=torch.complex64),
        "complex": torch.zeros(6, 4, dtype=torch.complex64).t().conj(),
        "scalar": torch.tensor(0),
        "parameter": torch.zeros(8, 6)[::2],
        "empty": torch.zeros(0, 3),
    }
    store.save("c", {"x": saved})
    store.load("c", into={"x": own}, inplace=inplace)
    for name, tensor in saved.items():
        assert torch.equal(own[name].resolve_conj(), tensor.detach().resolve_conj()), name
    assert not own["parameter"].requires_grad


@MODES
def test_what_cannot_be_written_to_is_refused(store: CheckpointStore, inplace: bool) -> None:
    value = torch.ones(4)
    with torch.inference_mode():
        inference = torch.zeros(4)
    freed = torch.zeros(4)
    freed.untyped_storage().resize_(0)
    own = {
        "meta": (torch.zeros(4, device="meta"), "meta device"),
        "inference": (inference, "inference mode"),
        "sparse": (torch.zeros(4).to_sparse(), "sparse"),
        "expanded": (torch.zeros(1).expand(4), "share their memory"),
        "freed": (freed, "storage holds 0 bytes"),
    }
    store.save("c", {"x": dict.fromkeys(own, value)})
    for name, (target, why) in own.items():
        into = dict.fromkeys(own, torch.zeros(4)) | {name: target}
        with pytest.raises(DestinationError, match=why):
            store.load("c", into={"x": into}, inplace=inplace)
    store.save("m", {"x": torch.ones(4, device="meta")})
    with pytest.raises(DestinationError, match="saved from the meta device"):
        store.load("m", into={"x": torch.zeros(4)}, inplace=inplace)


def test_an_optimizer_is_refused_with_the_next_step(store: CheckpointStore) -> None:
    model = network(1)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 60)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    store.save("c", {"model": model.state_dict(), "optimizer": state, "all": {"optimizer": state}})
    for into in ({"optimizer": optimizer}, {"all": {"optimizer": optimizer}}):
        with pytest.raises(
            DestinationError,
            match=r"load its saved state_dict\(\) without into, and give that to its load_state_dict\(\)",
        ):
            store.load("c", into=into)
    own = network(2)
    fresh = torch.optim.Adam(own.parameters())
    fresh.load_state_dict(store.load("c", into={"model": own})["optimizer"])
    assert equal(own, model)
    assert torch.equal(
        fresh.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"]
    )


def test_an_optimizer_saved_beside_its_module_is_not_silently_torn_from_it(store: CheckpointStore) -> None:
    model = network(1)
    store.save("c", {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)})
    own = network(2)
    with pytest.raises(
        DestinationError, match="field 'optimizer' shares objects or memory with what is loaded into"
    ):
        store.load("c", into={"model": own})
    assert equal(own, network(2))
    store.load("c", into={"model": own}, fields=["model"])
    assert equal(own, model)


def test_inplace_decodes_into_the_parameters_of_a_saved_module(store: CheckpointStore) -> None:
    saved, own = network(1), network(2)
    store.save("c", {"model": saved})
    copied: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        real = destination.copy
        patch.setattr(
            destination,
            "copy",
            lambda to, source: (copied.append(source.data_ptr() != to.data_ptr()), real(to, source)),
        )
        store.load("c", into={"model": own}, inplace=True)
    assert len(copied) == 9
    assert not any(copied)
    assert equal(own, saved)
