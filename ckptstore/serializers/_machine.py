"""The machine that runs a pickle by rules: a stack, marks, a memo, and the opcodes of protocol 5."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ckptstore.config import Limits
from ckptstore.errors import CheckpointStoreError, LimitExceededError
from ckptstore.serializers._allowlist import Allowlist
from ckptstore.serializers._nesting import Chains, KeyWork
from ckptstore.serializers._opcodes import NAMING, DamageError, operations
from ckptstore.serializers._rules import Arguments, Pending, Rule, UnfitError, shown, weigh

__all__ = ["Machine"]

_TOKENS = frozenset({Rule, Pending, Arguments})
_PER_OPERATION = 16
"""Bytes for the place on the stack, in the memo or in a container that each opcode may take."""


class Machine:
    """One run over one stream; ``run`` gives its object. See ``load_allowed`` for the arguments."""

    def __init__(
        self,
        stream: bytes,
        refs: Sequence[Any],
        buffers: Sequence[memoryview],
        allowed: Allowlist,
        chains: Chains,
        limits: Limits,
    ) -> None:
        self._stream = stream
        self._refs = refs
        self._foreign = frozenset(map(id, refs))
        self._buffers = buffers
        self._n_buffers = 0
        self._allowed = allowed
        self._chains = chains
        self._limit = limits.max_pickle_memory_bytes
        # What stands in the stream itself is no amplification.
        self._left = self._limit + len(stream)
        self._keys = KeyWork(1_000_000 + 16 * len(stream))
        self._kinds: dict[type[Any], Rule] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: list[Any] = []

    def run(self) -> Any:
        """Return the object. Raises UnfitError, DamageError, and IndexError or TypeError for more damage."""
        table = _TABLE
        first = True
        for op, start, end in operations(self._stream):
            if first and op != _PROTO and op not in NAMING:
                raise DamageError("it is not of protocol 5")
            first = False
            self._left -= _PER_OPERATION
            if self._left < 0:
                self._too_large()
            step = table.get(op)
            if step is None:
                if op in NAMING:
                    raise UnfitError("an opcode of older pickles that names or calls something")
                raise DamageError("it is not of protocol 5")
            step(self, start, end)
        if self._marks or len(self._stack) != 1:
            raise DamageError("it leaves more than one object")
        if self._n_buffers != len(self._buffers):
            raise DamageError(f"it uses {self._n_buffers} of {len(self._buffers)} buffers")
        return self._plain(self._stack[0])

    def _charge(self, n_bytes: int) -> None:
        self._left -= n_bytes
        if self._left < 0:
            self._too_large()

    def _too_large(self) -> NoReturn:
        raise LimitExceededError(
            f"the objects of a pickle take more than {self._limit} bytes beyond those of its stream "
            "(Limits.max_pickle_memory_bytes)"
        )

    # Values

    def _plain(self, value: Any) -> Any:
        """Return a value as data, which rules and what is not finished are not."""
        return value.plain() if type(value) in _TOKENS else value

    def _all_plain(self, values: list[Any]) -> list[Any]:
        if _TOKENS.isdisjoint(map(type, values)):
            return values
        return [self._plain(value) for value in values]

    def _number(self, start: int, end: int) -> int:
        return int.from_bytes(self._stream[start:end], "little")

    def _pop(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            raise DamageError("it takes what lies below a mark")
        return self._stack.pop()

    def _top(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            raise DamageError("it takes what lies below a mark")
        return self._stack[-1]

    def _items(self) -> list[Any]:
        """Take what lies above the last mark, and the mark."""
        if not self._marks:
            raise DamageError("it has no mark there")
        at = self._marks.pop()
        items = self._stack[at:]
        del self._stack[at:]
        return items

    # Opcodes that push a value

    def _proto(self, start: int, end: int) -> None:
        if self._stream[start] != 5:
            raise DamageError("it is not of protocol 5")

    def _nothing(self, start: int, end: int) -> None:
        pass

    def _int(self, start: int, end: int) -> None:
        self._charge(32)
        self._stack.append(self._number(start, end))

    def _signed(self, start: int, end: int) -> None:
        self._charge(32)
        self._stack.append(int.from_bytes(self._stream[start:end], "little", signed=True))

    def _float(self, start: int, end: int) -> None:
        self._charge(24)
        self._stack.append(struct.unpack_from(">d", self._stream, start)[0])

    def _bytes(self, start: int, end: int) -> None:
        self._charge(40 + end - start)
        self._stack.append(self._stream[start:end])

    def _bytearray(self, start: int, end: int) -> None:
        self._charge(64 + end - start)
        self._stack.append(bytearray(self._stream[start:end]))

    def _text(self, start: int, end: int) -> None:
        data = self._stream[start:end]
        # One character beyond Latin-1 makes the others as wide as itself.
        self._charge(64 + (len(data) if data.isascii() else 4 * len(data)))
        self._stack.append(data.decode("utf-8", "surrogatepass"))

    def _next_buffer(self, start: int, end: int) -> None:
        if self._n_buffers >= len(self._buffers):
            raise DamageError(f"it uses more than {len(self._buffers)} buffers")
        self._charge(200)
        self._stack.append(self._buffers[self._n_buffers])
        self._n_buffers += 1

    def _readonly_buffer(self, start: int, end: int) -> None:
        buffer = self._pop()
        if type(buffer) is not memoryview:
            raise DamageError("it makes something else than a buffer read-only")
        self._charge(200)
        self._stack.append(buffer.toreadonly())

    def _persistent(self, start: int, end: int) -> None:
        pid = self._pop()
        if type(pid) is not int:
            raise UnfitError("a persistent id that is no number")
        if not 0 <= pid < len(self._refs):
            raise DamageError("it refers to something it does not hold")
        self._stack.append(self._refs[pid])

    # The stack and the memo

    def _mark(self, start: int, end: int) -> None:
        self._marks.append(len(self._stack))

    def _drop(self, start: int, end: int) -> None:
        # Of a mark with nothing above it, it takes the mark.
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _drop_to_mark(self, start: int, end: int) -> None:
        self._items()

    def _memoize(self, start: int, end: int) -> None:
        self._memo.append(self._top())

    def _get(self, start: int, end: int) -> None:
        value = self._memo[self._number(start, end)]
        self._stack.append(value.plain() if type(value) is Pending and value.finished else value)

    # Containers

    def _tuple_of(self, items: list[Any]) -> None:
        self._charge(64 + 8 * len(items))
        made = tuple(items)
        self._stack.append(made if _TOKENS.isdisjoint(map(type, items)) else Arguments(made))

    def _tuple(self, start: int, end: int) -> None:
        self._tuple_of(self._items())

    def _short_tuple(self, n: int) -> None:
        items = [self._pop() for _ in range(n)]
        self._tuple_of(items[::-1])

    def _container(self, cls: Callable[[], Any], n_bytes: int) -> None:
        self._charge(n_bytes)
        self._stack.append(cls())

    def _frozenset(self, start: int, end: int) -> None:
        items = self._all_plain(self._items())
        self._charge(216 + 96 * len(items))
        self._keys.check(items)
        self._stack.append(frozenset(items))

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        items = self._all_plain(items)
        self._check_own(target)
        if type(target) is list:
            target.extend(items)
            return
        rule = self._rule_of(target, "extend")
        self._run(rule, rule.extend, target, items)

    def _append(self, start: int, end: int) -> None:
        self._extend([self._pop()])

    def _appends(self, start: int, end: int) -> None:
        self._extend(self._items())

    def _put(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise DamageError("a key without a value")
        target = self._top()
        self._check_own(target)
        items = self._all_plain(items)
        self._charge(60 * len(items))
        self._keys.check(items[::2])
        pairs = zip(items[::2], items[1::2], strict=True)
        if type(target) is dict:
            target.update(pairs)
            return
        rule = self._rule_of(target, "put")
        for key, value in pairs:
            self._charge(100)
            self._run(rule, rule.put, target, key, value)

    def _put_one(self, start: int, end: int) -> None:
        value = self._pop()
        self._put([self._pop(), value])

    def _put_all(self, start: int, end: int) -> None:
        self._put(self._items())

    def _add(self, start: int, end: int) -> None:
        items = self._all_plain(self._items())
        target = self._top()
        self._check_own(target)
        if type(target) is not set:
            raise DamageError("it adds elements to something else than a set")
        self._charge(96 * len(items))
        self._keys.check(items)
        target.update(items)

    # Names, and what is made of them

    def _name(self, start: int, end: int) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise UnfitError("a name that is no text")
        rule = self._allowed.find(module, name)
        if rule is None:
            raise UnfitError(shown(module, name))
        if rule.kind is not None:
            self._kinds[rule.kind] = rule
        self._stack.append(rule)

    def _reduce(self, start: int, end: int) -> None:
        args, rule = self._pop(), self._pop()
        if type(rule) is not Rule:
            raise UnfitError(f"a call of a {type(rule).__name__}")
        if not rule.raw:
            args = self._plain(args)
        elif type(args) is Arguments:
            args = args.items
        self._make(rule, rule.call, args, {})

    def _new(self, start: int, end: int) -> None:
        args, rule = self._plain(self._pop()), self._pop()
        self._make_new(rule, args, {})

    def _new_with_names(self, start: int, end: int) -> None:
        named, args, rule = self._plain(self._pop()), self._plain(self._pop()), self._pop()
        if type(named) is not dict or not all(type(key) is str for key in named):
            raise DamageError("arguments by name that are none")
        self._make_new(rule, args, named)

    def _make_new(self, rule: Any, args: Any, named: dict[str, Any]) -> None:
        if type(rule) is not Rule:
            raise UnfitError(f"an object of a {type(rule).__name__}")
        self._make(rule, rule.new, args, named)

    def _make(self, rule: Rule, call: Any, args: Any, named: dict[str, Any]) -> None:
        if type(args) is not tuple:
            raise DamageError("arguments that are no tuple")
        if call is None:
            raise UnfitError(f"a call of {rule.name}")
        self._charge(rule.cost + weigh(args) + weigh(named))
        made = self._run(rule, call, *args, **named)
        self._chains.add(made)
        self._stack.append(made)

    def _build(self, start: int, end: int) -> None:
        state = self._plain(self._pop())
        target = self._top()
        self._charge(weigh(state))
        if type(target) is Pending:
            self._stack[-1] = made = self._run(target, target.finish, state)
            self._chains.add(made)
            return
        self._check_own(target)
        rule = self._rule_of(target, "build")
        self._run(rule, rule.build, target, state)

    def _rule_of(self, target: Any, what: str) -> Rule:
        rule = self._kinds.get(type(target))
        if rule is None or getattr(rule, what) is None:
            kind = target.name if type(target) in (Rule, Pending) else type(target).__name__
            raise UnfitError(f"a change of {'the state' if what == 'build' else 'the items'} of a {kind}")
        return rule

    def _check_own(self, target: Any) -> None:
        if id(target) in self._foreign:
            raise DamageError("it changes an object that is not its own")

    @staticmethod
    def _run(rule: Rule | Pending, call: Any, *args: Any, **named: Any) -> Any:
        try:
            return call(*args, **named)
        except UnfitError as exc:
            raise UnfitError(f"{exc} ({rule.name})") from exc
        except CheckpointStoreError:
            raise
        except Exception as exc:
            if type(rule) is Rule and rule.users:
                raise CheckpointStoreError(
                    f"restoring an object of the allowed class {rule.name} failed with {type(exc).__name__}: {exc}"
                ) from exc
            raise UnfitError(f"a {rule.name} that cannot be made ({type(exc).__name__})") from exc


_Step = Callable[[Machine, int, int], None]


def _table() -> dict[int, _Step]:
    def pushes(value: Any) -> _Step:
        return lambda machine, start, end: machine._stack.append(value)

    def short_tuple(n: int) -> _Step:
        return lambda machine, start, end: machine._short_tuple(n)

    def container(cls: Callable[[], Any], n_bytes: int) -> _Step:
        return lambda machine, start, end: machine._container(cls, n_bytes)

    m = Machine
    steps: dict[str, _Step] = {
        "PROTO": m._proto, "FRAME": m._nothing, "STOP": m._nothing,
        "NONE": pushes(None), "NEWTRUE": pushes(True), "NEWFALSE": pushes(False),
        "BININT1": m._int, "BININT2": m._int, "BININT": m._signed, "LONG1": m._signed, "LONG4": m._signed,
        "BINFLOAT": m._float,
        "SHORT_BINBYTES": m._bytes, "BINBYTES": m._bytes, "BINBYTES8": m._bytes, "BYTEARRAY8": m._bytearray,
        "SHORT_BINUNICODE": m._text, "BINUNICODE": m._text, "BINUNICODE8": m._text,
        "NEXT_BUFFER": m._next_buffer, "READONLY_BUFFER": m._readonly_buffer, "BINPERSID": m._persistent,
        "MARK": m._mark, "POP": m._drop, "POP_MARK": m._drop_to_mark,
        "MEMOIZE": m._memoize, "BINGET": m._get, "LONG_BINGET": m._get,
        "EMPTY_TUPLE": pushes(()), "TUPLE": m._tuple,
        "TUPLE1": short_tuple(1), "TUPLE2": short_tuple(2), "TUPLE3": short_tuple(3),
        "EMPTY_LIST": container(list, 88), "APPEND": m._append, "APPENDS": m._appends,
        "EMPTY_DICT": container(dict, 160), "SETITEM": m._put_one, "SETITEMS": m._put_all,
        "EMPTY_SET": container(set, 216), "ADDITEMS": m._add, "FROZENSET": m._frozenset,
        "STACK_GLOBAL": m._name, "REDUCE": m._reduce,
        "NEWOBJ": m._new, "NEWOBJ_EX": m._new_with_names, "BUILD": m._build,
    }  # fmt: skip
    return {getattr(pickle, name)[0]: step for name, step in steps.items()}


_TABLE = _table()
_PROTO = pickle.PROTO[0]
