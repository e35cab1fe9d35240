"""Gadgets made of allowed names alone: what they could do if the rules were careless."""

from __future__ import annotations

import pickle

from gadgets import CANARY, Gadget
from streams import args, called, data, made, name, state, stream, text

_ODICT = called("collections", "OrderedDict")
_LINEAR = made("torch.nn.modules.linear", "Linear")
_MODULE = {"_parameters": {}, "_buffers": {}, "_modules": {}}
_TOUCH = text(f"touch {CANARY}")


def _dict(**parts: bytes) -> bytes:
    pairs = b"".join(text(key) + value for key, value in parts.items())
    return pickle.EMPTY_DICT + pickle.MARK + pairs + pickle.SETITEMS


def _module(**parts: bytes) -> bytes:
    return _dict(**{key: data(value) for key, value in _MODULE.items()}, **parts)


_TENSOR_V2 = name("torch._utils", "_rebuild_tensor_v2")

INSIDE: dict[str, Gadget] = {
    "a result is called": Gadget(stream(_ODICT, args(), pickle.REDUCE), "a call of a OrderedDict"),
    "data is called": Gadget(stream(text("os.system"), args(_TOUCH), pickle.REDUCE), "a call of a str"),
    "None is called": Gadget(stream(data(None), args(), pickle.REDUCE), "a call of a NoneType"),
    "an object of data": Gadget(stream(text("x"), args(), pickle.NEWOBJ), "an object of a str"),
    "an object of data by name": Gadget(
        stream(text("x"), args(), data({}), pickle.NEWOBJ_EX), "an object of a str"
    ),
    "attributes of a class": Gadget(
        stream(state(name("collections", "OrderedDict"), data({"__reduce__": 1}))),
        "change of the state of a collections",
    ),
    "attributes of a function": Gadget(
        stream(state(name("torch.nn.functional", "relu"), data({"__code__": 1}))),
        "change of the state of a torch",
    ),
    "attributes of a list": Gadget(stream(state(data([]), data({"x": 1}))), "change of the state of a list"),
    "attributes of a str": Gadget(stream(state(text("x"), data({"x": 1}))), "change of the state of a str"),
    "items of a class": Gadget(
        stream(name("collections", "deque"), data(1), pickle.APPEND),
        "change of the items of a collections.deque",
    ),
    "items of a str": Gadget(stream(text("x"), data(1), pickle.APPEND), "change of the items of a str"),
    "pairs of a list": Gadget(
        stream(data([]), data(1), data(2), pickle.SETITEM), "change of the items of a list"
    ),
    "pairs of a class": Gadget(
        stream(name("builtins", "dict"), data(1), data(2), pickle.SETITEM),
        "change of the items of a builtins.dict",
    ),
    "a default of os.system": Gadget(
        stream(called("collections", "defaultdict", name("os", "system"))), "os.system"
    ),
    "a default that is a module class": Gadget(
        stream(called("collections", "defaultdict", name("torch.nn.modules.linear", "Linear"))), "plain class"
    ),
    "a default that is a function": Gadget(
        stream(called("collections", "defaultdict", name("torch.nn.functional", "relu"))), "plain class"
    ),
    "a default that is a constructor": Gadget(
        stream(called("collections", "defaultdict", _TENSOR_V2)), "plain class"
    ),
    "a default that is no class": Gadget(
        stream(called("collections", "defaultdict", data("x"))), "plain class"
    ),
    "a constructor as data": Gadget(stream(_TENSOR_V2, pickle.TUPLE1), "as data"),
    "a constructor in a list": Gadget(stream(data([]), _TENSOR_V2, pickle.APPEND), "as data"),
    "a constructor alone": Gadget(stream(_TENSOR_V2), "as data"),
    "getattr alone": Gadget(stream(name("builtins", "getattr")), "as data"),
    "getattr of a class's loader": Gadget(
        stream(called("builtins", "getattr", name("zoneinfo", "ZoneInfo"), text("from_file"))), "from_file"
    ),
    "getattr of a base": Gadget(
        stream(called("builtins", "getattr", name("collections", "Counter"), text("__base__"))), "__base__"
    ),
    "getattr of subclasses": Gadget(
        stream(called("builtins", "getattr", name("builtins", "object"), text("__subclasses__"))),
        "__subclasses__",
    ),
    "getattr of globals": Gadget(
        stream(called("builtins", "getattr", name("torch.nn.functional", "relu"), text("__globals__"))),
        "__globals__",
    ),
    "a zone outside its folder": Gadget(
        stream(
            called("builtins", "getattr", name("zoneinfo", "ZoneInfo"), text("_unpickle")),
            args(text("../../../etc/passwd"), data(True)),
            pickle.REDUCE,
        ),
        "no zone",
    ),
    "a type of an object": Gadget(stream(called("builtins", "type", data("x"))), "type of an object"),
    "an object with arguments": Gadget(stream(made("builtins", "object", data(1))), "builtins.object"),
    "an object that is called": Gadget(stream(called("builtins", "object")), "a call of builtins.object"),
    "a list that is called": Gadget(stream(called("builtins", "list", data([1]))), "a call of builtins.list"),
    "a slice of slices": Gadget(
        stream(
            called(
                "builtins", "slice", called("builtins", "slice", data(1), data(1), data(1)), data(1), data(1)
            )
        ),
        "a slice",
    ),
    "an array of another class": Gadget(
        stream(
            called("numpy._core.multiarray", "_reconstruct", name("builtins", "dict"), data((0,)), data(b"b"))
        ),
        "another class",
    ),
    "an array of a memory map": Gadget(
        stream(
            called("numpy._core.multiarray", "_reconstruct", name("numpy", "memmap"), data((0,)), data(b"b"))
        ),
        "numpy.memmap",
    ),
    "a dtype with an attribute": Gadget(
        stream(
            state(
                called("numpy", "dtype", text("f8"), data(False), data(True)),
                args(data(3), text("<"), data(None), data(("a",)), data({}), data(-1), data(-1), data(0)),
            )
        ),
        "structured",
    ),
    "a dtype of objects in a scalar": Gadget(
        stream(
            called(
                "numpy._core.multiarray",
                "scalar",
                state(
                    called("numpy", "dtype", text("O8"), data(False), data(True)),
                    data((3, "|", None, None, None, -1, -1, 63)),
                ),
                data(b"\x00" * 8),
            )
        ),
        "do not fit",
    ),
    "a generator of a class": Gadget(
        stream(called("numpy.random._pickle", "__bit_generator_ctor", name("builtins", "dict"))),
        "a generator",
    ),
    "a generator of a name": Gadget(
        stream(called("numpy.random._pickle", "__bit_generator_ctor", text("PCG64"))), "a generator"
    ),
    "a tensor of another function": Gadget(
        stream(
            name("torch._tensor", "_rebuild_from_type_v2"),
            args(name("os", "system"), name("torch", "Tensor"), args(_TOUCH), data({})),
            pickle.REDUCE,
        ),
        "os.system",
    ),
    "a tensor of an allowed function": Gadget(
        stream(
            name("torch._tensor", "_rebuild_from_type_v2"),
            args(name("builtins", "getattr"), name("torch", "Tensor"), data(("x", "y")), data({})),
            pickle.REDUCE,
        ),
        "needs a torch.Tensor",
    ),
    "a tensor of another class": Gadget(
        stream(
            name("torch._tensor", "_rebuild_from_type_v2"),
            args(_TENSOR_V2, name("collections", "OrderedDict"), data(()), data({})),
            pickle.REDUCE,
        ),
        "collections.OrderedDict",
    ),
    "a tensor of data": Gadget(
        stream(called("torch._tensor", "_rebuild_from_type_v2", data(1), data(2), data(()), data({})))
    ),
    "a module with a hook": Gadget(
        stream(state(_LINEAR, _module(_forward_hooks=_dict(x=name("collections", "OrderedDict"))))),
        "with hooks",
    ),
    "a module with a hook of another type": Gadget(
        stream(state(_LINEAR, _module(_forward_hooks=data([1])))), "with hooks"
    ),
    "a module with its forward replaced": Gadget(
        stream(state(_LINEAR, _module(forward=name("collections", "OrderedDict")))), "the method forward"
    ),
    "a compiled module": Gadget(
        stream(state(_LINEAR, _module(_compiled_call_impl=name("collections", "OrderedDict")))), "compiled"
    ),
    "a module with __class__": Gadget(stream(state(_LINEAR, _module(__class__=data(1)))), "__class__"),
    "a module of text": Gadget(stream(state(_LINEAR, text("x"))), "state of a module"),
    "a module without members": Gadget(stream(state(_LINEAR, data({}))), "state of a module"),
    "a module of a module": Gadget(
        stream(state(_LINEAR, _dict(_parameters=data({}), _buffers=data({}), _modules=_dict(x=data(1))))),
        "other members",
    ),
    "a module with arguments": Gadget(
        stream(made("torch.nn.modules.linear", "Linear", data(2), data(2))), "Linear"
    ),
    "a module that is called": Gadget(
        stream(called("torch.nn.modules.linear", "Linear", data(2), data(2))),
        "a call of torch.nn.modules.linear.Linear",
    ),
    "an optimizer with hooks": Gadget(
        stream(
            state(
                made("torch.optim.adam", "Adam"),
                data({"defaults": {}, "state": {}, "param_groups": [], "_optimizer_step_pre_hooks": {1: 2}}),
            )
        ),
        "state of an optimizer",
    ),
    "a scheduler with its step replaced": Gadget(
        stream(state(made("torch.optim.lr_scheduler", "StepLR"), data({"step": 1}))), "the method step"
    ),
    "a namespace of data": Gadget(stream(state(made("argparse", "Namespace"), data([1]))), "dict of names"),
    "a namespace of numbers": Gadget(
        stream(state(called("types", "SimpleNamespace"), data({1: 2}))), "dict of names"
    ),
    "an OrderedDict with its items replaced": Gadget(
        stream(state(_ODICT, data({"items": 1}))), "the method items"
    ),
    "a UUID that is not one": Gadget(
        stream(state(made("uuid", "UUID"), data({"int": 1, "__class__": 2}))), "no UUID"
    ),
    "a UUID that is not finished": Gadget(stream(made("uuid", "UUID")), "not finished"),
    "a UUID with two states": Gadget(
        stream(
            made("uuid", "UUID"),
            pickle.MEMOIZE,
            data({"int": 1}),
            pickle.BUILD,
            data({"int": 2}),
            pickle.BUILD,
        ),
        "change of the state of a UUID",
    ),
}
