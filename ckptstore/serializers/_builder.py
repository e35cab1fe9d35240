"""Checked graphs and loaded blocks to values."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from ckptstore.config import Limits
from ckptstore.errors import CheckpointStoreError, FormatError, ManifestCorruptError
from ckptstore.serializers import arrays
from ckptstore.serializers._allowlist import Allowlist
from ckptstore.serializers._check import FieldGraph, Ref
from ckptstore.serializers._nesting import Chains, KeyWork
from ckptstore.serializers._rules import Work
from ckptstore.serializers._unpickler import load_allowed
from ckptstore.serializers.dtypes import rebuild
from ckptstore.serializers.pickling import load_unit
from ckptstore.serializers.registry import Registry
from ckptstore.serializers.tensors import TensorBuilder

__all__ = ["Builder"]

_SHELLS = {"list": list, "dict": dict, "set": set, "odict": OrderedDict}
_OPEN = object()


class Builder:
    """Makes values of checked graphs; ``allowed`` is None where the writer is trusted."""

    def __init__(
        self,
        graphs: Mapping[str, FieldGraph],
        blocks: Mapping[tuple[str, int], memoryview],
        *,
        registry: Registry,
        device: str | None,
        allowed: Allowlist | None,
        limits: Limits,
    ) -> None:
        self._graphs = graphs
        self._blocks = blocks
        self._registry = registry
        self._device = device
        self._allowed = allowed
        self._limits = limits
        self._keys = KeyWork(4 * limits.max_nodes)
        self._chains = Chains()
        self._work = Work()
        self._tensors: TensorBuilder | None = None
        self._wholes: dict[tuple[str, int], Any] = {}
        self._values: dict[Ref, Any] = {}
        self._done: set[Ref] = set()
        self._waiting: dict[Ref, list[Ref]] = {}

    def field(self, field: str) -> Any:
        """Return the value of a field. Raises as ``RestorePlan.build``."""
        graph = self._graphs[field]
        for ref in graph.root_refs:
            self._build(ref)
        return self._value(graph.root, field)

    def node(self, ref: Ref) -> Any:
        """Return the value of a node. Raises as ``RestorePlan.build``."""
        self._build(ref)
        return self._values[ref]

    def check_keys(self, keys: Sequence[Any]) -> None:
        """Raise LimitExceededError for keys that take too much work to be hashed."""
        self._keys.check(keys)

    def give_up(self) -> None:
        """Let go of what was built, of a load that failed."""
        self._chains.dismantle()

    def _build(self, top: Ref) -> None:
        """Build a node after all that it refers to.

        Lists, dicts and sets exist before their elements, so cycles through
        them close; whoever meets a tuple that is still being built waits for it.
        """
        stack = [top]
        values = self._values
        while stack:
            ref = stack[-1]
            if ref in self._done:
                stack.pop()
                continue
            graph = self._graphs[ref[0]]
            if ref not in values:
                node, kids = graph.nodes[ref[1]], graph.refs[ref[1]]
                shell = _SHELLS.get(node[0])
                if shell is None and not kids:  # nearly all: nothing to wait for
                    stack.pop()
                    self._make(ref, node)
                    continue
                values[ref] = _OPEN if shell is None else shell()
                stack += [kid for kid in reversed(kids) if kid not in values]
                continue
            stack.pop()
            self._finish(ref)
        if self._waiting:
            raise self._corrupt(next(iter(self._waiting)), "it contains itself in a way that cannot be built")

    def _finish(self, ref: Ref) -> None:
        pending = [ref]
        while pending:
            ref = pending.pop()
            graph = self._graphs[ref[0]]
            node = graph.nodes[ref[1]]
            blocker = next((kid for kid in graph.refs[ref[1]] if self._values[kid] is _OPEN), None)
            if blocker is not None:
                self._waiting.setdefault(blocker, []).append(ref)
                self._done.add(ref)
                continue
            self._make(ref, node)
            pending += self._waiting.pop(ref, ())

    def _corrupt(self, ref: Ref, reason: str) -> FormatError:
        tag = self._graphs[ref[0]].nodes[ref[1]][0]
        return ManifestCorruptError(f"node {ref[1]} ({tag}) of field {ref[0]!r} cannot be built: {reason}")

    def _value(self, value: Any, field: str) -> Any:
        if type(value) is not list:
            return value
        return self._values[(field, value[0]) if len(value) == 1 else (value[0], value[1])]

    def _all(self, values: list[Any], field: str) -> list[Any]:
        if list not in set(map(type, values)):
            return values
        return [value if type(value) is not list else self._value(value, field) for value in values]

    def _make(self, ref: Ref, node: list[Any]) -> None:
        """Build a node; all that it refers to was built."""
        try:
            if node[0] in _SHELLS:
                self._fill(self._values[ref], node, ref[0])
            else:
                self._values[ref] = self._made(ref, node)
        except CheckpointStoreError:
            raise
        except ImportError as exc:
            raise CheckpointStoreError(
                f"field {ref[0]!r} holds data of kind {node[0]!r}, and {exc.name or 'its package'} "
                "cannot be imported here: install it, or load other fields"
            ) from exc
        except (TypeError, ValueError, OverflowError, RuntimeError) as exc:
            raise self._corrupt(ref, f"{type(exc).__name__}: {exc}") from exc
        except Exception as exc:
            # Keys and elements may be objects whose __hash__ and __eq__ are the user's.
            raise CheckpointStoreError(
                f"field {ref[0]!r}: building a {node[0]} failed with {type(exc).__name__}: {exc}"
            ) from exc
        self._done.add(ref)

    def _made(self, ref: Ref, node: list[Any]) -> Any:
        tag, field = node[0], ref[0]
        if tag == "tensor":
            return self._torch().tensor(node, self._key(node[4], field), self._memory(node[4], field))
        if tag == "array":
            return arrays.restore_array(node, self._elements(node[4], field))
        if tag == "tuple":
            return tuple(self._all(node[1], field))
        if tag == "frozenset":
            elements = self._all(node[1], field)
            self._keys.check(elements)
            return frozenset(elements)
        if tag == "storage":
            return self._torch().storage(node, self._key(node[3], field), self._memory(node[3], field))
        if tag == "pickle":
            return self._unpickle(node, field)
        if tag == "member":
            return self._member(ref, node)
        if tag == "custom":
            return self._custom(node, field)
        return self._simple(node, field)

    def _fill(self, shell: Any, node: list[Any], field: str) -> None:
        tag = node[0]
        items = self._all(node[1], field)
        if tag == "list":
            shell.extend(items)
        elif tag == "set":
            self._keys.check(items)
            shell.update(items)
        else:
            self._keys.check(items[::2])
            shell.update(zip(items[::2], items[1::2], strict=True))
            if tag == "odict":
                attributes = self._all(node[2], field)
                vars(shell).update(zip(attributes[::2], attributes[1::2], strict=True))

    def _simple(self, node: list[Any], field: str) -> Any:
        tag = node[0]
        if tag == "complex":
            return complex(node[1], node[2])
        if tag == "scalar":
            return arrays.restore_scalar(node)
        if tag == "dtype":
            return rebuild(node[1])
        if tag == "torch.dtype":
            return self._torch().dtype(node[1])
        if tag == "torch.device":
            return self._torch().device(node[1])
        if tag == "torch.Size":
            return self._torch().size(node[1])
        payload = self._payload(node[1], field)
        if tag == "str":
            return str(payload, "utf-8", "surrogatepass")
        if tag == "int":
            return int.from_bytes(payload, "little", signed=True)
        return bytearray(payload) if tag == "bytearray" else bytes(payload)

    def _custom(self, node: list[Any], field: str) -> Any:
        custom = self._registry.of_name(node[1])
        if custom is None:
            raise CheckpointStoreError(
                f"field {field!r} holds an object of the registered type {node[1]!r}, and this store's registry "
                "has no such name: register the type before loading"
            )
        try:
            return custom.restore(self._value(node[2], field))
        except Exception as exc:
            raise CheckpointStoreError(
                f"field {field!r}: the restore function registered as {node[1]!r} raised "
                f"{type(exc).__name__}: {exc}"
            ) from exc

    def _unpickle(self, node: list[Any], field: str) -> Any:
        _, payload, buffers, values, names, n = node
        views: list[memoryview] = []
        for block, offset, nbytes, readonly in buffers:
            memory = self._memory(block, field)
            view = memoryview(bytearray()) if memory is None else memory[offset : offset + nbytes]
            views.append(view.toreadonly() if readonly else view)
        stream = bytes(self._payload(payload, field))
        refs = self._all(values, field)
        if self._allowed is None:
            made = load_unit(stream, refs=refs, buffers=views, field=field, names=names)
        else:
            made = load_allowed(
                stream,
                refs=refs,
                buffers=views,
                field=field,
                allowed=self._allowed,
                chains=self._chains,
                keys=self._keys,
                work=self._work,
                limits=self._limits,
            )
        if n and (type(made) is not tuple or len(made) != n):
            raise ManifestCorruptError(f"field {field!r}: a pickle does not hold the {n} objects it should")
        return made

    def _member(self, ref: Ref, node: list[Any]) -> Any:
        (group,) = self._graphs[ref[0]].refs[ref[1]]
        pickled = self._graphs[group[0]].nodes[group[1]]
        if pickled[0] != "pickle" or node[2] >= pickled[5]:
            raise self._corrupt(ref, "it is not in the pickle it names")
        return self._values[group][node[2]]

    def _payload(self, payload: Any, field: str) -> bytes | memoryview:
        return payload if type(payload) is bytes else self._blocks[field, payload]

    def _key(self, block: Any, field: str) -> tuple[str, int]:
        return (block[0], block[1]) if type(block) is list else (field, block)

    def _memory(self, block: Any, field: str) -> memoryview | None:
        return None if block is None else self._blocks[self._key(block, field)]

    def _elements(self, block: Any, field: str) -> Any:
        """Return a block as an array of bytes: arrays that share memory have one base, and no others have it."""
        if block is None:
            return None
        key = self._key(block, field)
        whole = self._wholes.get(key)
        if whole is None:
            whole = self._wholes[key] = arrays.whole(self._blocks[key])
        return whole

    def _torch(self) -> TensorBuilder:
        if self._tensors is None:
            self._tensors = TensorBuilder(self._device)
        return self._tensors
