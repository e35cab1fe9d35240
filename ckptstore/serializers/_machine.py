"""The machine that runs a pickle by rules: its loop, and the opcodes that fill containers or use names."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

from ckptstore.config import Limits
from ckptstore.errors import CheckpointStoreError
from ckptstore.serializers._allowlist import Allowlist
from ckptstore.serializers._nesting import Chains, KeyWork
from ckptstore.serializers._opcodes import NAMING, DamageError, argument
from ckptstore.serializers._rules import Arguments, Pending, Rule, UnfitError, Work, shown, weigh
from ckptstore.serializers._stack import PER_OPERATION, TOKENS, Stack, text_bytes

__all__ = ["Machine"]

_float_at = Struct(">d").unpack_from


class Machine(Stack):
    """One run over one stream; ``run`` gives its object. See ``load_allowed`` for the arguments."""

    def __init__(
        self,
        stream: bytes,
        refs: Sequence[Any],
        buffers: Sequence[memoryview],
        *,
        allowed: Allowlist,
        chains: Chains,
        keys: KeyWork,
        work: Work,
        limits: Limits,
    ) -> None:
        super().__init__(stream, refs, buffers, limits)
        self._allowed = allowed
        self._chains = chains
        self._keys = keys
        self._work = work
        self._kinds: dict[type[Any], Rule] = {}

    def run(self) -> Any:
        """Return the object. Raises UnfitError, DamageError, and IndexError or TypeError for more damage."""
        stream = self._stream
        if not stream or (stream[0] != _PROTO and stream[0] not in NAMING):
            raise DamageError("it is not of protocol 5")
        self._run_all()
        if self._marks or len(self._stack) != 1:
            raise DamageError("it leaves more than one object")
        if self._n_buffers != len(self._buffers):
            raise DamageError(f"it uses {self._n_buffers} of {len(self._buffers)} buffers")
        return self._plain(self._stack[0])

    def _run_all(self) -> None:
        # Every load without trust goes through this loop: what objects are mostly made of is done in it, and the
        # rest by a method each. An argument that is cut off leads ``at`` beyond the end, which is looked at last.
        stream, stack, marks, memo = self._stream, self._stack, self._marks, self._memo
        push, table = stack.append, _TABLE
        at, size, left, ended = 0, len(stream), self._left, False
        while left >= 0 and at < size:
            op = stream[at]
            at += 1
            left -= PER_OPERATION
            if op == _BINGET:
                value = memo[stream[at]]
                push(value.plain() if type(value) is Pending and value.finished else value)
                at += 1
            elif op == _MEMOIZE:
                if marks and len(stack) <= marks[-1]:
                    raise DamageError("it takes what lies below a mark")
                memo.append(stack[-1])
            elif op == _SHORT_TEXT:
                start, at = at + 1, at + 1 + stream[at]
                data = stream[start:at]
                left -= text_bytes(data)
                push(data.decode("utf-8", "surrogatepass"))
            elif op == _BYTE:
                left -= 32
                push(stream[at])
                at += 1
            elif op == _MARK:
                marks.append(len(stack))
            elif op == _EMPTY_TUPLE:
                push(())
            elif op == _EMPTY_DICT:
                left -= 160
                push({})
            elif op == _FLOAT and at + 8 <= size:
                left -= 24
                push(_float_at(stream, at)[0])
                at += 8
            elif op == _STOP:
                if at != size:
                    raise DamageError(f"{size - at} bytes follow its end")
                ended = True
            else:
                start, at = argument(stream, op, at)
                step = table.get(op)
                if step is None:
                    if op in NAMING:
                        raise UnfitError("an opcode of older pickles that names or calls something")
                    raise DamageError("it is not of protocol 5")
                self._left = left
                step(self, start, at)
                left = self._left
        if left < 0:
            self._too_large()
        if not ended:
            raise DamageError("it has no end")

    def _get(self, start: int, end: int) -> None:
        value = self._memo[self._number(start, end)]
        self._stack.append(value.plain() if type(value) is Pending and value.finished else value)

    # Containers

    def _tuple_of(self, items: list[Any]) -> None:
        self._charge(64 + 8 * len(items))
        made = tuple(items)
        self._stack.append(made if TOKENS.isdisjoint(map(type, items)) else Arguments(made))

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
        self._charge(rule.cost + weigh(args) + (weigh(named) if named else 0))
        if rule.work is not None:
            self._work.spend(rule.work(args))
        made = self._run(rule, call, *args, **named)
        self._chains.add(made)
        self._stack.append(made)

    def _build(self, start: int, end: int) -> None:
        state = self._plain(self._pop())
        target = self._top()
        self._charge(weigh(state))
        if type(target) is Pending:
            if target.work is not None:
                self._work.spend(target.work(state))
            self._stack[-1] = made = self._run(target, target.finish, state)
            self._chains.add(made)
            return
        self._check_own(target)
        rule = self._rule_of(target, "build")
        if rule.work is not None:
            self._work.spend(rule.work(state))
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
        "PROTO": m._proto, "FRAME": m._nothing,
        "NONE": pushes(None), "NEWTRUE": pushes(True), "NEWFALSE": pushes(False),
        "BININT2": m._int, "BININT": m._signed, "LONG1": m._signed, "LONG4": m._signed,
        "SHORT_BINBYTES": m._bytes, "BINBYTES": m._bytes, "BINBYTES8": m._bytes, "BYTEARRAY8": m._bytearray,
        "BINUNICODE": m._text, "BINUNICODE8": m._text,
        "NEXT_BUFFER": m._next_buffer, "READONLY_BUFFER": m._readonly_buffer, "BINPERSID": m._persistent,
        "POP": m._drop, "POP_MARK": m._drop_to_mark,
        "LONG_BINGET": m._get,
        "TUPLE": m._tuple,
        "TUPLE1": short_tuple(1), "TUPLE2": short_tuple(2), "TUPLE3": short_tuple(3),
        "EMPTY_LIST": container(list, 88), "APPEND": m._append, "APPENDS": m._appends,
        "SETITEM": m._put_one, "SETITEMS": m._put_all,
        "EMPTY_SET": container(set, 216), "ADDITEMS": m._add, "FROZENSET": m._frozenset,
        "STACK_GLOBAL": m._name, "REDUCE": m._reduce,
        "NEWOBJ": m._new, "NEWOBJ_EX": m._new_with_names, "BUILD": m._build,
    }  # fmt: skip
    return {getattr(pickle, name)[0]: step for name, step in steps.items()}


_TABLE = _table()
(_PROTO, _STOP, _BINGET, _MEMOIZE, _SHORT_TEXT, _BYTE, _FLOAT, _MARK, _EMPTY_TUPLE, _EMPTY_DICT) = (
    getattr(pickle, name)[0]
    for name in (
        *("PROTO", "STOP", "BINGET", "MEMOIZE", "SHORT_BINUNICODE", "BININT1", "BINFLOAT", "MARK"),
        *("EMPTY_TUPLE", "EMPTY_DICT"),
    )
)
