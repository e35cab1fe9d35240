"""Graphs and blocks back to values."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from ckptstore.config import Limits
from ckptstore.errors import CheckpointStoreError, FormatError, ManifestCorruptError
from ckptstore.serializers import arrays, pickling
from ckptstore.serializers._check import BlockUse, FieldGraph, Ref
from ckptstore.serializers._pause import collector_paused
from ckptstore.serializers.dtypes import rebuild
from ckptstore.serializers.registry import Registry
from ckptstore.serializers.tensors import TensorBuilder

__all__ = ["RestorePlan"]


class RestorePlan:
    """What it takes to restore some fields, found out from their graphs alone.

    Add graphs until ``wanted`` is empty; look at ``pickled``, whether the data
    is trusted enough; load ``blocks``; then ``build``. Nothing is imported and
    no code of a checkpoint runs before ``build``.

    ``roots`` are the fields to restore. Fields that share something with them
    become wanted too, and only what is shared is built.
    """

    def __init__(self, roots: Sequence[str], *, limits: Limits, registry: Registry) -> None:
        self._roots = list(roots)
        self._limits = limits
        self._registry = registry
        self._graphs: dict[str, FieldGraph] = {}
        self._reached: dict[Ref, None] = {}
        self._uses: dict[tuple[str, int], int] = {}
        self._waiting_nodes: dict[str, list[int]] = {}
        self._waiting_uses: dict[str, list[BlockUse]] = {}
        self._wanted: dict[str, None] = dict.fromkeys(self._roots)

    @property
    def wanted(self) -> frozenset[str]:
        """The fields whose graphs must still be added."""
        return frozenset(self._wanted)

    def add_graph(self, field: str, graph: bytes, block_sizes: Sequence[int]) -> None:
        """Check the graph of a field and find out what it needs.

        ``block_sizes`` are the sizes in bytes of the field's blocks.

        Raises ManifestCorruptError or LimitExceededError.
        """
        if field in self._graphs:
            return
        with collector_paused():
            checked = self._graphs[field] = FieldGraph(field, graph, block_sizes, self._limits)
        self._wanted.pop(field, None)
        for use in self._waiting_uses.pop(field, ()):
            self._use(use)
        stack: list[Ref] = [(field, at) for at in self._waiting_nodes.pop(field, ())]
        if field in self._roots:
            stack += checked.root_refs
        while stack:
            ref = stack.pop()
            if ref in self._reached:
                continue
            owner = self._graphs.get(ref[0])
            if owner is None:
                self._wanted[ref[0]] = None
                self._waiting_nodes.setdefault(ref[0], []).append(ref[1])
                continue
            if ref[1] >= owner.n_nodes:
                raise ManifestCorruptError(
                    f"the graph of a field refers to node {ref[1]} of field {ref[0]!r}, which has {owner.n_nodes}"
                )
            self._reached[ref] = None
            stack += owner.refs[ref[1]]
            for use in owner.uses[ref[1]]:
                self._use(use)

    def _use(self, use: BlockUse) -> None:
        field, block, nbytes = use
        owner = self._graphs.get(field)
        if owner is None:
            self._wanted[field] = None
            self._waiting_uses.setdefault(field, []).append(use)
            return
        if block >= len(owner.block_sizes) or nbytes > owner.block_sizes[block]:
            raise ManifestCorruptError(
                f"the graph of a field reaches beyond block {block} of field {field!r}"
            )
        self._uses[field, block] = owner.block_sizes[block]

    @property
    def blocks(self) -> list[tuple[str, int]]:
        """The blocks that ``build`` needs, as field and number."""
        return list(self._uses)

    @property
    def pickled(self) -> dict[str, list[str]]:
        """The fields of which pickled parts are needed, with the names that those say they import."""
        found: dict[str, set[str]] = {}
        for field, at in self._reached:
            node = self._graphs[field].nodes[at]
            if node[0] == "pickle":
                found.setdefault(field, set()).update(node[4])
        return {field: sorted(names) for field, names in found.items()}

    def build(
        self, blocks: Mapping[tuple[str, int], memoryview], *, device: str | None = None
    ) -> dict[str, Any]:
        """Return the values of the requested fields.

        ``blocks`` are writable, and become the memory of arrays and tensors:
        the caller must not touch them again. Tensors that were saved from
        another device than the CPU go to ``device``; without one they come
        back on the CPU.

        This runs the code that pickled parts name.

        Raises ManifestCorruptError for what cannot be built, and
        CheckpointStoreError for a missing class, a type that nobody registered
        or an error in the code of a class.
        """
        if self._wanted:
            raise ManifestCorruptError(f"the graphs of {sorted(self._wanted)} are missing")
        for key, nbytes in self._uses.items():
            if key not in blocks or blocks[key].nbytes != nbytes:
                raise ManifestCorruptError(f"block {key[1]} of field {key[0]!r} is not {nbytes} bytes")
        builder = _Builder(self._graphs, blocks, self._registry, device)
        with collector_paused():
            return {field: builder.field(field) for field in self._roots}


_SHELLS = {"list": list, "dict": dict, "set": set, "odict": OrderedDict}
_OPEN = object()


class _Builder:
    def __init__(
        self,
        graphs: Mapping[str, FieldGraph],
        blocks: Mapping[tuple[str, int], memoryview],
        registry: Registry,
        device: str | None,
    ) -> None:
        self._graphs = graphs
        self._blocks = blocks
        self._registry = registry
        self._device = device
        self._tensors: TensorBuilder | None = None
        self._values: dict[Ref, Any] = {}
        self._done: set[Ref] = set()
        self._waiting: dict[Ref, list[Ref]] = {}

    def field(self, field: str) -> Any:
        graph = self._graphs[field]
        for ref in graph.root_refs:
            self._build(ref)
        return self._value(graph.root, field)

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
                shell = _SHELLS.get(graph.nodes[ref[1]][0])
                values[ref] = _OPEN if shell is None else shell()
                stack += [kid for kid in reversed(graph.refs[ref[1]]) if kid not in values]
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
            try:
                self._make(ref, node)
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
        tag = node[0]
        field = ref[0]
        if tag in _SHELLS:
            self._fill(self._values[ref], node, field)
        elif tag == "tuple":
            self._values[ref] = tuple(self._all(node[1], field))
        elif tag == "frozenset":
            self._values[ref] = frozenset(self._all(node[1], field))
        elif tag == "array":
            self._values[ref] = arrays.restore_array(node, self._memory(node[4], field))
        elif tag == "tensor":
            self._values[ref] = self._torch().tensor(
                node, self._key(node[4], field), self._memory(node[4], field)
            )
        elif tag == "storage":
            self._values[ref] = self._torch().storage(
                node, self._key(node[3], field), self._memory(node[3], field)
            )
        elif tag == "pickle":
            self._values[ref] = self._unpickle(node, field)
        elif tag == "member":
            self._values[ref] = self._member(ref, node)
        elif tag == "custom":
            self._values[ref] = self._custom(node, field)
        else:
            self._values[ref] = self._simple(node, field)

    def _fill(self, shell: Any, node: list[Any], field: str) -> None:
        tag = node[0]
        items = self._all(node[1], field)
        if tag == "list":
            shell.extend(items)
        elif tag == "set":
            shell.update(items)
        else:
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
        made = pickling.load_unit(
            bytes(self._payload(payload, field)),
            refs=self._all(values, field),
            buffers=views,
            field=field,
            names=names,
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

    def _torch(self) -> TensorBuilder:
        if self._tensors is None:
            self._tensors = TensorBuilder(self._device)
        return self._tensors
