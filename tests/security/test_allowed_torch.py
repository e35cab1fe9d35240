"""Modules, optimizers and tensors of torch come back without trust, and work."""

from __future__ import annotations

import importlib
from collections import deque
from typing import Any

import pytest
from round_trip import trip

from ckptstore.errors import UntrustedPickleError
from ckptstore.serializers import _torch_names

torch = pytest.importorskip("torch")
nn = torch.nn
schedulers = torch.optim.lr_scheduler


def _net() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * 3 * 3, 4),
        nn.LayerNorm(4),
        nn.Softmax(1),
    ).eval()


INPUTS: dict[str, tuple[Any, Any]] = {
    "Linear": (nn.Linear(3, 2), torch.ones(1, 3)),
    "a net": (_net(), torch.ones(2, 1, 8, 8)),
    "Embedding": (nn.Embedding(5, 2), torch.tensor([[1, 4]])),
    "LSTM": (nn.LSTM(3, 4, 2, bidirectional=True), torch.ones(5, 1, 3)),
    "GRU": (nn.GRU(3, 4), torch.ones(5, 1, 3)),
    "transformer layer": (nn.TransformerEncoderLayer(4, 2, activation="gelu").eval(), torch.ones(3, 1, 4)),
    "transformer": (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, batch_first=True), 2).eval(),
        torch.ones(3, 1, 4),
    ),
    "Upsample": (nn.Upsample(scale_factor=2), torch.ones(1, 1, 2, 2)),
    "averaged": (torch.optim.swa_utils.AveragedModel(nn.Linear(3, 2)), torch.ones(1, 3)),
}


@pytest.mark.parametrize("what", INPUTS)
def test_a_module_computes_the_same(what: str) -> None:
    module, given = INPUTS[what]
    back = trip(module)
    assert type(back) is type(module)
    assert back.training == module.training
    mine, theirs = back(given), module(given)
    mine, theirs = (mine[0], theirs[0]) if isinstance(mine, tuple) else (mine, theirs)
    assert torch.equal(mine, theirs)
    assert list(back.state_dict()) == list(module.state_dict())


def test_containers_of_modules_and_parameters_come_back() -> None:
    for module in (
        nn.ModuleList([nn.Linear(1, 1)]),
        nn.ModuleDict({"a": nn.Linear(1, 1)}),
        nn.ParameterList([nn.Parameter(torch.ones(2))]),
        nn.ParameterDict({"a": nn.Parameter(torch.ones(2))}),
    ):
        assert [value.tolist() for value in trip(module).parameters()] == [
            value.tolist() for value in module.parameters()
        ]


def test_a_recurrent_module_knows_its_weights() -> None:
    back = trip(nn.LSTM(3, 4))
    assert back._flat_weights[0] is back.weight_ih_l0
    assert back._flat_weight_refs[0]() is back.weight_ih_l0


@pytest.mark.parametrize(
    "name", [name for name in " ".join(_torch_names.OPTIMIZERS.values()).split() if name != "SparseAdam"]
)
def test_an_optimizer_goes_on_with_its_model(name: str) -> None:
    model = nn.Linear(3, 2, bias=name != "Muon")
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1)

    def step(model: Any, optimizer: Any) -> None:
        def closure() -> Any:
            optimizer.zero_grad()
            loss = model(torch.ones(1, 3)).sum()
            loss.backward()
            return loss

        optimizer.step(closure)

    step(model, optimizer)
    back = trip({"model": model, "optimizer": optimizer})
    assert back["optimizer"].param_groups[0]["params"][0] is back["model"].weight
    step(model, optimizer)
    step(back["model"], back["optimizer"])
    assert torch.equal(back["model"].weight, model.weight)


SCHEDULERS: dict[str, Any] = {
    "StepLR": lambda o: schedulers.StepLR(o, 3),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [1, 2]),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 5),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 0.1, 10),
    "ReduceLROnPlateau": schedulers.ReduceLROnPlateau,
    "LinearLR": schedulers.LinearLR,
    "ConstantLR": schedulers.ConstantLR,
    "PolynomialLR": schedulers.PolynomialLR,
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o), schedulers.StepLR(o, 3)], milestones=[2]
    ),
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler([schedulers.LinearLR(o)]),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*:UserWarning")
def test_a_scheduler_goes_on(name: str) -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1, momentum=0.9)
    scheduler = SCHEDULERS[name](optimizer)
    back = trip({"optimizer": optimizer, "scheduler": scheduler})
    for one in (scheduler, back["scheduler"]):
        one.step(*[1.0] * (name == "ReduceLROnPlateau"))
    assert back["optimizer"].param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def test_a_scheduler_with_functions_needs_trust() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    with pytest.raises(UntrustedPickleError, match=r"CyclicLR\._triangular_scale_fn"):
        trip(schedulers.CyclicLR(optimizer, 0.1, 0.2, cycle_momentum=False))


def test_a_gradient_scaler_comes_back() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    assert trip(scaler).state_dict() == scaler.state_dict()


def test_tensors_with_attributes_come_back() -> None:
    tensor = torch.arange(6.0)[1:5:2]
    tensor.note = [1]
    back = trip(tensor)
    assert back.tolist() == [1, 3]
    assert back.note == [1]
    parameter = nn.Parameter(torch.ones(2), requires_grad=False)
    parameter.note = "x"
    again = trip(parameter)
    assert type(again) is nn.Parameter
    assert (again.note, again.requires_grad) == ("x", False)
    assert type(trip(nn.Buffer(torch.ones(2)))) is torch.Tensor


@pytest.mark.parametrize("layout", ["coo", "csr", "csc", "bsr", "bsc"])
@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta:UserWarning")
def test_sparse_tensors_come_back(layout: str) -> None:
    dense = torch.tensor([[0.0, 2.0], [3.0, 0.0]])
    sparse = (
        dense.to_sparse()
        if layout == "coo"
        else getattr(dense, f"to_sparse_{layout}")(*[(1, 1)] * (layout[0] == "b"))
    )
    back = trip(sparse)
    assert back.layout is sparse.layout
    assert torch.equal(back.to_dense(), dense)


def test_types_of_torch_come_back_inside_objects() -> None:
    value = deque(
        [torch.float32, torch.bool, torch.device("cpu"), torch.device("cuda", 1), torch.Size([1, 2])]
    )
    assert trip(value) == value
    assert trip(
        deque([torch.strided, nn.functional.relu, torch.Tensor, nn.Parameter, nn.Linear, torch.optim.Adam])
    ) == deque([torch.strided, nn.functional.relu, torch.Tensor, nn.Parameter, nn.Linear, torch.optim.Adam])


def test_the_list_names_classes_of_the_installed_torch() -> None:
    missing = []
    for module, names in _torch_names.MODULES.items():
        found = vars(importlib.import_module(f"torch.nn.modules.{module}"))
        missing += [name for name in names.split() if not issubclass(found.get(name, int), nn.Module)]
    for module, names in _torch_names.OPTIMIZERS.items():
        found = vars(importlib.import_module(module))
        missing += [
            name for name in names.split() if not issubclass(found.get(name, int), torch.optim.Optimizer)
        ]
    missing += [name for name in _torch_names.SCHEDULERS.split() if not hasattr(schedulers, name)]
    assert missing == []


def test_a_module_with_a_hook_needs_trust() -> None:
    module = nn.Linear(1, 1)
    module.register_forward_hook(print)
    with pytest.raises(UntrustedPickleError, match=r"builtins\.print"):
        trip(module)
