"""Rules for torch: modules, optimizers, and what tensors are made of. A stream's names import torch.

An object of a class in ``_torch_names`` is made by ``object.__new__`` and given
its attributes; no ``__setstate__`` of a module runs, because some of them
count up to numbers that stand in the state.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict, defaultdict
from functools import partial
from math import prod
from typing import Any

from ckptstore.errors import CheckpointStoreError
from ckptstore.serializers import _torch_names
from ckptstore.serializers._rules import Arguments, Maker, Rule, fits, resolve, set_attributes
from ckptstore.serializers.arrays import strided_range
from ckptstore.serializers.dtypes import torch_itemsize

__all__ = ["NAMES"]

_MAX_DIMS = 64
_HOOKS = [
    "_backward_pre_hooks",
    "_backward_hooks",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
]


def _class(module: str, name: str, base: type[Any]) -> Any:
    """Return a class of torch that makes its objects in no way of its own."""
    cls = resolve(module, name)
    if not isinstance(cls, type) or not issubclass(cls, base) or "__new__" in vars(cls):
        raise CheckpointStoreError(
            f"{module}.{name} is not the class it was: load with the torch that saved it"
        )
    return cls


def _maker(cls: Any) -> Any:
    def new() -> Any:
        return object.__new__(cls)

    return new


def _hidden(cls: type[Any]) -> Any:
    return lambda name: callable(getattr(cls, name, None))


def _state_work(state: Any) -> int:
    """Steps of a state whose members are looked at one by one."""
    steps = 500
    for part in state.values() if type(state) is dict else ():
        steps += _n_items(part)
        for group in part if type(part) is list else ():
            steps += sum(map(_n_items, group.values())) if type(group) is dict else 0
    return steps


def _n_items(value: Any) -> int:
    return 20 * len(value) if type(value) in (dict, OrderedDict, defaultdict, list) else 0


def _is_empty_dict(value: Any) -> bool:
    return type(value) in (dict, OrderedDict) and not value


def _module(module: str, name: str) -> Rule:
    import torch

    cls = _class(module, name, torch.nn.Module)
    hidden = _hidden(cls)

    def build(obj: Any, state: Any) -> None:
        fits(type(state) is dict, "no state of a module")
        for hooks in _HOOKS:
            fits(_is_empty_dict(state.get(hooks, {})), f"a {cls.__name__} with hooks")
        fits(state.get("_compiled_call_impl") is None, f"a compiled {cls.__name__}")
        _check_members(state.get("_parameters"), torch.Tensor)
        _check_members(state.get("_buffers"), torch.Tensor)
        _check_members(state.get("_modules"), torch.nn.Module)
        set_attributes(obj, state, hidden=hidden)
        own = vars(obj)
        for hooks in _HOOKS:
            own.setdefault(hooks, OrderedDict())
        own.setdefault("_non_persistent_buffers_set", set())
        own.setdefault("_is_full_backward_hook", None)
        if isinstance(obj, torch.nn.RNNBase):
            flat = own.get("_flat_weights")
            fits(
                type(flat) is list
                and all(weight is None or isinstance(weight, torch.Tensor) for weight in flat),
                "weights of another torch",
            )
            own["_flat_weight_refs"] = [weight if weight is None else weakref.ref(weight) for weight in flat]

    return Rule(
        f"{module}.{name}", value=cls, new=_maker(cls), build=build, kind=cls, cost=2000, work=_state_work
    )


def _check_members(members: Any, kind: Any) -> None:
    fits(type(members) in (dict, OrderedDict), "no state of a module")
    for name, member in members.items():
        fits(
            type(name) is str and (member is None or isinstance(member, kind)), "a module with other members"
        )


def _optimizer(module: str, name: str) -> Rule:
    import torch

    cls = _class(module, name, torch.optim.Optimizer)

    def build(obj: Any, state: Any) -> None:
        fits(
            type(state) is dict and set(state) == {"defaults", "state", "param_groups"},
            "no state of an optimizer",
        )
        defaults, entries, groups = state["defaults"], state["state"], state["param_groups"]
        fits(type(defaults) is dict, "no state of an optimizer")
        fits(type(entries) in (dict, defaultdict), "no state of an optimizer")
        fits(all(type(entry) is dict for entry in entries.values()), "no state of an optimizer")
        fits(type(groups) is list, "no state of an optimizer")
        for group in groups:
            fits(type(group) is dict and type(group.get("params")) is list, "no state of an optimizer")
            fits(
                all(isinstance(param, torch.Tensor) for param in group["params"]), "no state of an optimizer"
            )
        # torch's own, which goes through groups and entries once and adds what newer versions need.
        obj.__setstate__(state)

    def work(state: Any) -> int:
        return 10_000 + _state_work(state)

    return Rule(f"{module}.{name}", value=cls, new=_maker(cls), build=build, kind=cls, cost=2000, work=work)


def _attributes(module: str, name: str) -> Rule:
    """Rule of a class whose objects are their attributes and nothing else."""
    cls = _class(module, name, object)
    build = partial(set_attributes, hidden=_hidden(cls))
    return Rule(f"{module}.{name}", value=cls, new=_maker(cls), build=build, kind=cls, cost=1000)


def _value(module: str, name: str) -> Rule:
    return Rule(f"{module}.{name}", value=resolve(module, name))


def _dtype(module: str, name: str) -> Rule:
    import torch

    value = resolve(module, name)
    fits(isinstance(value, torch.dtype), f"{module}.{name}")
    return Rule(f"{module}.{name}", value=value)


def _device(module: str, name: str) -> Rule:
    import torch

    def make(*args: Any) -> Any:
        fits(len(args) in (1, 2) and type(args[0]) is str and len(args[0]) <= 40, "no device")
        fits(len(args) == 1 or (type(args[1]) is int and 0 <= args[1] < 128), "no device")
        return torch.device(*args)

    return Rule(f"{module}.{name}", value=torch.device, call=make)


def _size(module: str, name: str) -> Rule:
    import torch

    def make(*args: Any) -> Any:
        fits(len(args) == 1, "no size")
        return torch.Size(_ints(args[0]))

    return Rule(f"{module}.{name}", value=torch.Size, call=make)


def _ints(value: Any) -> tuple[int, ...]:
    fits(type(value) is tuple and len(value) <= _MAX_DIMS, "a size of too many dimensions")
    fits(all(type(n) is int and 0 <= n < 2**62 for n in value), "a malformed size")
    checked: tuple[int, ...] = value
    return checked


def _layout(module: str, name: str) -> Rule:
    import torch

    layouts = {str(known): known for known in (torch.strided, *_sparse_layouts())}

    def make(*args: Any) -> Any:
        fits(len(args) == 1 and type(args[0]) is str and args[0] in layouts, "no layout")
        return layouts[args[0]]

    return Rule(f"{module}.{name}", call=make)


def _sparse_layouts() -> tuple[Any, ...]:
    import torch

    return (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def _tensor(module: str, name: str) -> Rule:
    import torch

    def make(*args: Any) -> Any:
        fits(len(args) in (6, 7) and not (args[6:] and args[6]), "a tensor of other arguments")
        storage, offset, size, stride, grad, hooks = args[:6]
        fits(
            type(storage) is torch.storage.TypedStorage and type(grad) is bool, "a tensor of other arguments"
        )
        fits(hooks is None or _is_empty_dict(hooks), "a tensor with hooks")
        fits(type(offset) is int and 0 <= offset < 2**62, "a tensor of other arguments")
        size, stride = _ints(size), _ints(stride)
        fits(len(size) == len(stride), "a tensor of other arguments")
        untyped, dtype = storage._untyped_storage, storage.dtype
        itemsize = torch_itemsize(str(dtype).removeprefix("torch."))
        fits(itemsize is not None and prod(n or 1 for n in size) < 2**62, "a tensor of other arguments")
        _, high = strided_range(size, stride, 1)
        fits(offset + high <= untyped.nbytes() // (itemsize or 1), "a tensor beyond its storage")
        tensor = torch.empty(0, dtype=dtype, device=untyped.device).set_(untyped, offset, size, stride)
        return tensor.requires_grad_(grad)

    return Rule(f"{module}.{name}", call=make)


def _parameter(module: str, name: str) -> Rule:
    import torch

    def make(*args: Any) -> Any:
        with_state = name.endswith("_with_state")
        fits(len(args) == (4 if with_state else 3), "a parameter of other arguments")
        fits(type(args[0]) is torch.Tensor and type(args[1]) is bool, "a parameter of other arguments")
        fits(args[2] is None or _is_empty_dict(args[2]), "a parameter with hooks")
        parameter = torch.nn.Parameter(args[0], args[1])
        if with_state:
            set_attributes(parameter, args[3], hidden=partial(hasattr, torch.nn.Parameter))
        return parameter

    return Rule(f"{module}.{name}", call=make)


def _with_attributes(module: str, name: str) -> Rule:
    import torch

    def make(*args: Any) -> Any:
        fits(
            len(args) == 4 and type(args[0]) is Rule and type(args[1]) is Rule, "a tensor of other arguments"
        )
        how, kind, given, state = args
        fits(how.name == "torch._utils._rebuild_tensor_v2" and kind.value is torch.Tensor, f"a {kind.name}")
        given = given.plain() if type(given) is Arguments else given
        fits(type(given) is tuple, "a tensor of other arguments")
        tensor = how.call(*given)
        set_attributes(tensor, state, hidden=partial(hasattr, torch.Tensor))
        return tensor

    return Rule(f"{module}.{name}", call=make, raw=True)


def _sparse(module: str, name: str) -> Rule:
    import torch

    def make(*args: Any) -> Any:
        fits(len(args) == 2 and type(args[1]) is tuple, "a sparse tensor of other arguments")
        layout, parts = args
        fits(
            type(layout) is torch.layout and layout in _sparse_layouts() and len(parts) == 4,
            "no sparse tensor",
        )
        if layout is torch.sparse_coo:
            indices, values, size, coalesced = parts
            fits(type(coalesced) is bool and type(size) is torch.Size, "no sparse tensor")
            fits(all(type(part) is torch.Tensor for part in (indices, values)), "no sparse tensor")
            return torch.sparse_coo_tensor(
                indices, values, size, check_invariants=True, is_coalesced=coalesced
            )
        outer, inner, values, size = parts
        fits(all(type(part) is torch.Tensor for part in (outer, inner, values)), "no sparse tensor")
        fits(type(size) is torch.Size, "no sparse tensor")
        return torch.sparse_compressed_tensor(
            outer, inner, values, size, layout=layout, check_invariants=True
        )

    def work(args: Any) -> int:
        # Its indices are checked.
        parts = args[1] if len(args) == 2 and type(args[1]) is tuple else ()
        return 2000 + sum(part.numel() for part in parts if type(part) is torch.Tensor)

    return Rule(f"{module}.{name}", call=make, work=work)


NAMES: dict[tuple[str, str], Maker] = {
    **{
        (f"torch.nn.modules.{module}", name): _module
        for module, names in _torch_names.MODULES.items()
        for name in names.split()
    },
    ("torch.optim.swa_utils", "AveragedModel"): _module,
    **{
        (module, name): _optimizer
        for module, names in _torch_names.OPTIMIZERS.items()
        for name in names.split()
    },
    **{("torch.optim.lr_scheduler", name): _attributes for name in _torch_names.SCHEDULERS.split()},
    ("torch.amp.grad_scaler", "GradScaler"): _attributes,
    **{(module, name): _value for module, names in _torch_names.FUNCTIONS.items() for name in names.split()},
    ("torch", "Size"): _size,
    ("torch", "Tensor"): _value,
    ("torch", "device"): _device,
    ("torch.nn.parameter", "Parameter"): _value,
    **{
        ("torch", name): _dtype
        for name in [
            "bfloat16",
            "float16",
            "float32",
            "float64",
            "float8_e4m3fn",
            "float8_e5m2",
            "complex32",
            "complex64",
            "complex128",
            "bool",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
        ]
    },
    ("torch.serialization", "_get_layout"): _layout,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._utils", "_rebuild_sparse_tensor"): _sparse,
    ("torch._tensor", "_rebuild_from_type_v2"): _with_attributes,
}
