"""Rules for numpy's scalars, dtypes, arrays of objects and random generators. A stream's names import numpy."""

from __future__ import annotations

import re
from math import prod
from typing import Any

from ckptstore.serializers._rules import Maker, Pending, Rule, fits, resolve
from ckptstore.serializers.dtypes import itemsize_of, rebuild

__all__ = ["NAMES", "is_object_array"]

_MAX_DIMS = 64
_MAX_ENTROPY_BITS = 1 << 16
_KIND_AND_SIZE = re.compile(r"([biufcmMSUV])([1-9]\d{0,9})", re.ASCII)


def is_object_array(value: Any) -> bool:
    """Whether a value is an array whose elements are objects."""
    import numpy as np

    return isinstance(value, np.ndarray) and value.dtype.kind == "O"


def _shape(shape: Any) -> tuple[int, ...]:
    fits(type(shape) is tuple and len(shape) <= _MAX_DIMS, "a shape of too many dimensions")
    fits(all(type(n) is int and 0 <= n < 2**62 for n in shape), "a malformed shape")
    checked: tuple[int, ...] = shape
    return checked


def _dtype(module: str, name: str) -> Rule:
    import numpy as np

    def make(*args: Any) -> Any:
        fits(
            len(args) == 3 and type(args[0]) is str and args[1] is False and args[2] is True,
            "a dtype of other arguments",
        )
        if args[0] == "O8":
            return Pending(f"{module}.{name}", _finish_object)
        match = _KIND_AND_SIZE.fullmatch(args[0])
        # An empty text is the one type without a size.
        fits(match is not None or args[0] in ("U0", "S0"), "a dtype that is not a plain one")
        return Pending(f"{module}.{name}", lambda state: _finish_dtype(args[0], state))

    return Rule(f"{module}.{name}", value=np.dtype, call=make)


def _finish_object(state: Any) -> Any:
    import numpy as np

    plain = (3, "|", None, None, None, -1, -1, 63)
    fits(
        type(state) is tuple and all(type(part) in (int, str, type(None)) for part in state),
        "a dtype with more to it",
    )
    fits(state == plain, "a dtype with more to it")
    return np.dtype("O")


def _finish_dtype(code: str, state: Any) -> Any:
    import numpy as np

    fits(type(state) is tuple and len(state) in (8, 9), "a dtype with more to it")
    version, order, subdtype, names, fields = state[:5]
    fits(type(version) is int and type(order) is str and order in ("<", ">", "|"), "a malformed dtype")
    fits(subdtype is None and names is None and fields is None, "a structured dtype")
    if code in ("U0", "S0"):
        return np.dtype(code[0])
    unit = ""
    if len(state) == 9:
        fits(version == 4 and code in ("M8", "m8"), "a dtype with metadata")
        unit = _unit(state[8])
    text = ("|" if code[0] in "SV" or code in ("b1", "i1", "u1") else order) + code + unit
    try:
        itemsize_of(text, max_dims=_MAX_DIMS)
    except ValueError:
        fits(False, "a dtype that is none")
    return rebuild(text)


def _unit(extra: Any) -> str:
    """Return the unit of a datetime in brackets, from ``(None, (b"ns", 1, 1, 1))``."""
    fits(
        type(extra) is tuple and len(extra) == 2 and type(extra[1]) is tuple and len(extra[1]) in (3, 4),
        "no unit",
    )
    fits(extra[0] is None or (type(extra[0]) is dict and not extra[0]), "a dtype with metadata")
    unit, count, *rest = extra[1]
    fits(type(unit) is bytes and len(unit) <= 7 and type(count) is int and 0 < count < 10**9, "no unit")
    fits(all(type(part) is int and part == 1 for part in rest), "no unit")
    if unit == b"generic":
        return ""
    return f"[{count if count > 1 else ''}{unit.decode('ascii', 'replace')}]"


def _scalar(module: str, name: str) -> Rule:
    import numpy as np

    def make(*args: Any) -> Any:
        fits(
            len(args) == 2 and isinstance(args[0], np.dtype) and type(args[1]) is bytes,
            "a scalar of other arguments",
        )
        fits(_has_bytes(args[0]) and len(args[1]) == args[0].itemsize, "a scalar whose bytes do not fit")
        return np.ndarray((), args[0], buffer=bytearray(args[1]) or None)[()]

    return Rule(f"{module}.{name}", call=make)


def _has_bytes(dtype: Any) -> bool:
    return not dtype.hasobject and dtype.kind in "biufcmMSUV"


def _reconstruct(module: str, name: str) -> Rule:
    import numpy as np

    def make(*args: Any) -> Any:
        fits(len(args) == 3 and args[0] is np.ndarray, "an array of another class")
        fits(
            type(args[1]) is tuple and len(args[1]) == 1 and type(args[2]) is bytes,
            "an array of other arguments",
        )
        return Pending("numpy.ndarray", _finish_array)

    return Rule(f"{module}.{name}", call=make)


def _finish_array(state: Any) -> Any:
    import numpy as np

    fits(type(state) is tuple and len(state) == 5, "no state of an array")
    _, dims, dtype, fortran, data = state
    shape = _shape(dims)
    fits(isinstance(dtype, np.dtype) and type(fortran) in (int, bool), "no state of an array")
    order: Any = "F" if fortran else "C"
    size = prod(shape)
    if dtype.kind == "O":
        fits(type(data) is list and len(data) == size, "an array of another number of objects")
        array = np.fromiter(data, dtype=object, count=size).reshape(shape)
        return np.asfortranarray(array) if fortran and len(shape) > 1 else array
    fits(_has_bytes(dtype) and type(data) is bytes, "no state of an array")
    fits(len(data) == size * dtype.itemsize, "an array whose bytes do not fit")
    return np.ndarray(shape, dtype, buffer=bytearray(data) or None, order=order)


def _frombuffer(module: str, name: str) -> Rule:
    import numpy as np

    def make(*args: Any) -> Any:
        fits(
            len(args) == 4 and type(args[0]) in (bytes, bytearray, memoryview), "an array of other arguments"
        )
        buffer, dtype, dims, order = args
        shape = _shape(dims)
        fits(isinstance(dtype, np.dtype) and _has_bytes(dtype), "an array of other arguments")
        fits(type(order) is str and order in ("C", "F"), "an array of other arguments")
        fits(memoryview(buffer).nbytes == prod(shape) * dtype.itemsize, "an array whose bytes do not fit")
        return np.ndarray(shape, dtype, buffer=buffer or None, order=order)

    return Rule(f"{module}.{name}", call=make)


def _class(module: str, name: str) -> Rule:
    return Rule(f"{module}.{name}", value=resolve(module, name))


# Bit generators: the parts of their states that numpy reads, and what it relies on without a look.
_WORD64 = 2**64 - 1
_GENERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "MT19937": ("_mt19937", {"key": ("uint32", 624), "pos": 624}),
    "PCG64": ("_pcg64", {"state": 2**128 - 1, "inc": 2**128 - 1}),
    "PCG64DXSM": ("_pcg64", {"state": 2**128 - 1, "inc": 2**128 - 1}),
    "Philox": ("_philox", {"counter": ("uint64", 4), "key": ("uint64", 2)}),
    "SFC64": ("_sfc64", {"state": ("uint64", 4)}),
}
_MORE: dict[str, dict[str, Any]] = {
    "MT19937": {},
    "PCG64": {"has_uint32": 1, "uinteger": 2**32 - 1},
    "PCG64DXSM": {"has_uint32": 1, "uinteger": 2**32 - 1},
    "Philox": {"buffer": ("uint64", 4), "buffer_pos": 4, "has_uint32": 1, "uinteger": 2**32 - 1},
    "SFC64": {"has_uint32": 1, "uinteger": 2**32 - 1},
}


def _check_parts(parts: Any, expected: dict[str, Any]) -> None:
    import numpy as np

    fits(type(parts) is dict and set(parts) == set(expected), "no state of a random generator")
    for name, what in expected.items():
        part = parts[name]
        if type(what) is int:
            fits(type(part) is int and 0 <= part <= what, f"{name} of a random generator")
        else:
            fits(type(part) is np.ndarray, f"{name} of a random generator")
            fits(
                part.dtype == np.dtype(what[0]) and part.shape == (what[1],), f"{name} of a random generator"
            )


def _check_bits(state: Any, name: str) -> None:
    fits(type(state) is dict and type(state.get("bit_generator")) is str, "no state of a random generator")
    fits(state["bit_generator"] == name, "the state of another random generator")
    _check_parts(
        {key: part for key, part in state.items() if key not in ("bit_generator", "state")}, _MORE[name]
    )
    _check_parts(state.get("state"), _GENERATORS[name][1])


def _bits(module: str, name: str) -> Rule:
    import numpy as np

    classes = {getattr(np.random, known): known for known in _GENERATORS}

    def make(*args: Any) -> Any:
        fits(
            len(args) == 1 and isinstance(args[0], type) and args[0] in classes,
            "a generator of other arguments",
        )
        cls = args[0]

        def finish(state: Any) -> Any:
            fits(type(state) is tuple and len(state) == 2, "no state of a random generator")
            _check_bits(state[0], classes[cls])
            fits(state[1] is None or type(state[1]) is np.random.SeedSequence, "a seed of another class")
            made = cls(0)
            made.__setstate__(state)
            return made

        return Pending(f"numpy.random.{classes[cls]}", finish, work=lambda state: 3000)

    return Rule(f"{module}.{name}", call=make)


def _generator(module: str, name: str) -> Rule:
    import numpy as np

    def make(*args: Any) -> Any:
        fits(len(args) == 1 and type(args[0]).__name__ in _GENERATORS, "a generator of other arguments")
        fits(isinstance(args[0], np.random.BitGenerator), "a generator of other arguments")
        return np.random.Generator(args[0])

    return Rule(f"{module}.{name}", call=make, cost=2000)


def _random_state(module: str, name: str) -> Rule:
    import numpy as np

    def make(*args: Any) -> Any:
        fits(len(args) == 1 and type(args[0]) is np.random.MT19937, "a RandomState of other arguments")
        return np.random.RandomState(args[0])

    def build(obj: Any, state: Any) -> None:
        fits(
            type(state) is dict and set(state) == {"bit_generator", "state", "has_gauss", "gauss"},
            "no RandomState",
        )
        fits(type(state["has_gauss"]) is int and type(state["gauss"]) is float, "no RandomState")
        _check_bits({key: state[key] for key in ("bit_generator", "state")}, "MT19937")
        obj.set_state(state)

    return Rule(
        f"{module}.{name}",
        call=make,
        build=build,
        kind=np.random.RandomState,
        cost=6000,
        work=lambda given: 5000,
    )


def _seed(module: str, name: str) -> Rule:
    import numpy as np

    def finish(state: Any) -> Any:
        fits(type(state) is tuple and len(state) == 5, "no seed")
        entropy, spawned, pool, pool_size, spawn_key = state
        words = entropy if type(entropy) is list else [entropy]
        keys = spawn_key if type(spawn_key) is tuple else (None,)
        numbers = [*words, *keys, spawned]
        fits(len(numbers) <= 1000 and all(type(word) is int and word >= 0 for word in numbers), "no seed")
        fits(sum(word.bit_length() for word in numbers) <= _MAX_ENTROPY_BITS, "a seed that is too long")
        fits(type(pool_size) is int and 4 <= pool_size <= 256, "no seed")
        made = np.random.SeedSequence(
            entropy, spawn_key=spawn_key, pool_size=pool_size, n_children_spawned=spawned
        )
        fits(type(pool) is np.ndarray and np.array_equal(pool, made.pool), "a seed whose pool is another's")
        return made

    def make(*args: Any) -> Any:
        fits(
            len(args) == 3 and args[0] is np.random.SeedSequence and args[2] is None,
            "a seed of other arguments",
        )
        return Pending("numpy.random.SeedSequence", finish, work=_seed_work)

    return Rule(f"{module}.{name}", call=make)


def _seed_work(state: Any) -> int:
    """Steps: numpy takes the entropy apart word by word, and mixes each word of the pool with each.

    What is too large is refused by ``finish``, and takes no time.
    """
    if type(state) is not tuple or len(state) != 5:
        return 0
    words = state[0] if type(state[0]) is list else [state[0]]
    numbers = [*words, *(state[4] if type(state[4]) is tuple else ())]
    bits = [min(number.bit_length(), _MAX_ENTROPY_BITS) for number in numbers if type(number) is int]
    pool = min(state[3], 256) if type(state[3]) is int else 0
    return 1000 + sum(size * size >> 9 for size in bits) + pool * pool


_SCALARS = [
    "bool_",
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
    "str_",
    "bytes_",
    "datetime64",
    "timedelta64",
    "ndarray",
]

NAMES: dict[tuple[str, str], Maker] = {
    **{("numpy", name): _class for name in _SCALARS},
    ("numpy", "dtype"): _dtype,
    # Under the names of numpy 1 and of numpy 2.
    **{
        (f"numpy.{core}.{module}", name): make
        for core in ("core", "_core")
        for module, name, make in (
            ("multiarray", "scalar", _scalar),
            ("multiarray", "_reconstruct", _reconstruct),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
    ("numpy.random._pickle", "__bit_generator_ctor"): _bits,
    ("numpy.random._pickle", "__generator_ctor"): _generator,
    ("numpy.random._pickle", "__randomstate_ctor"): _random_state,
    ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"): _seed,
    ("numpy.random.bit_generator", "SeedSequence"): _class,
    **{(f"numpy.random.{module}", name): _class for name, (module, _) in _GENERATORS.items()},
}
