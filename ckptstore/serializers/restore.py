"""Graphs and blocks back to values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, TypeVar

from ckptstore._pause import collector_paused
from ckptstore.config import Limits
from ckptstore.errors import LimitExceededError, ManifestCorruptError
from ckptstore.serializers._allowlist import Allowlist
from ckptstore.serializers._builder import Builder
from ckptstore.serializers._check import BlockUse, FieldGraph, Ref
from ckptstore.serializers._opcodes import imported_names
from ckptstore.serializers._outline import Outline, Spot
from ckptstore.serializers._rules import shown
from ckptstore.serializers._unpickler import refusal
from ckptstore.serializers.graph import CONJ, NEG
from ckptstore.serializers.registry import Registry

__all__ = ["RestorePlan"]

T = TypeVar("T")

_SCANNED_BYTES = 4 * 1024 * 1024
"""How far names are looked for before a load: most come early, and each is looked at again where it is used."""


class RestorePlan:
    """What it takes to restore some fields, found out from their graphs alone.

    Add graphs until ``wanted`` is empty; give the blocks that ``streams`` names
    to ``check_pickles``; load ``blocks``; then ``build``. Nothing is imported
    and no code of a checkpoint runs before ``build``.

    ``roots`` are the fields to restore. Fields that share something with them
    become wanted too, and only what is shared is built. Unless the writer is
    ``trusted``, pickled parts are made by the rules of ``allowed`` alone.
    """

    def __init__(
        self,
        roots: Sequence[str],
        *,
        limits: Limits,
        registry: Registry,
        trusted: bool = False,
        allowed: Allowlist | None = None,
    ) -> None:
        self._allowed = None if trusted else allowed or Allowlist()
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
    def trusted(self) -> bool:
        """Whether pickled parts run."""
        return self._allowed is None

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
            self._reach(stack)

    def _reach(self, stack: list[Ref]) -> None:
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

    @collector_paused()
    def part(self, refs: Iterable[Ref]) -> RestorePlan:
        """Return the plan of some nodes alone, whose graphs were all added here; ``build_nodes`` gives them."""
        plan = RestorePlan([], limits=self._limits, registry=self._registry)
        plan._allowed = self._allowed
        plan._graphs = self._graphs
        plan._reach(list(refs))
        return plan

    def outline(self) -> Outline:
        """Return what the graphs tell of the values without their bytes."""
        return Outline(self._graphs, self._builder({}, None))

    @property
    def nodes(self) -> Set[Ref]:
        """The nodes that ``build`` makes."""
        return self._reached.keys()

    @property
    def blocks(self) -> list[tuple[str, int]]:
        """The blocks that ``build`` needs, as field and number."""
        return list(self._uses)

    @collector_paused()
    def whole_blocks(self) -> dict[tuple[str, int], Ref]:
        """Return the blocks that are all elements, in C order, of one array or tensor, and nothing else's."""
        users = Counter(
            (field, block) for ref in self._reached for field, block, _ in self._graphs[ref[0]].uses[ref[1]]
        )
        outline = self.outline()
        found: dict[tuple[str, int], Ref] = {}
        for ref in self._reached:
            node = self._graphs[ref[0]].nodes[ref[1]]
            leaf = outline.leaf(Spot(ref))
            if leaf is None or node[3] is not None or (node[0] == "tensor" and node[7] & (CONJ | NEG)):
                continue
            for field, block, _ in self._graphs[ref[0]].uses[ref[1]]:
                if users[field, block] == 1 and self._uses[field, block] == leaf.nbytes:
                    found[field, block] = ref
        return found

    @property
    def pickled(self) -> dict[str, list[str]]:
        """The fields of which pickled parts are needed, with the names that those say they import."""
        found: dict[str, set[str]] = {}
        for field, at in self._reached:
            node = self._graphs[field].nodes[at]
            if node[0] == "pickle":
                found.setdefault(field, set()).update(node[4])
        return {field: sorted(names) for field, names in found.items()}

    @property
    def streams(self) -> list[tuple[str, int]]:
        """The blocks that ``check_pickles`` needs: none if the writer is trusted.

        Raises LimitExceededError for a pickle that is too long to be loaded without trust.
        """
        found: dict[tuple[str, int], None] = {}
        if self._allowed is None:
            return []
        for field, at in self._reached:
            graph = self._graphs[field]
            node = graph.nodes[at]
            if node[0] == "pickle" and type(node[1]) is int:
                size, limit = graph.block_sizes[node[1]], self._limits.max_pickle_bytes
                if size > limit:
                    raise LimitExceededError(
                        f"field {field!r} holds a pickle of {size} bytes, and without trust at most {limit} are "
                        "loaded (Limits.max_pickle_bytes)"
                    )
                found[field, node[1]] = None
        return list(found)

    def check_pickles(self, blocks: Mapping[tuple[str, int], memoryview]) -> None:
        """Find out whether what is pickled can be loaded, from the names in its streams, before the rest is loaded.

        Raises UntrustedPickleError with the names that cannot. It may still be
        raised by ``build``, for objects that are not what their names promise.
        """
        if self._allowed is None:
            return
        for field, at in self._reached:
            node = self._graphs[field].nodes[at]
            if node[0] != "pickle":
                continue
            payload = node[1]
            stream = payload if type(payload) is bytes else bytes(blocks[field, payload][:_SCANNED_BYTES])
            names = imported_names(stream)
            refused = [shown(*name) for name in names if not self._allowed.knows(*name)]
            if refused:
                more = f" and {len(refused) - 8} more" if len(refused) > 8 else ""
                raise refusal(field, ", ".join(refused[:8]) + more)

    def build(
        self, blocks: Mapping[tuple[str, int], memoryview], *, device: str | None = None
    ) -> dict[str, Any]:
        """Return the values of the requested fields.

        ``blocks`` are writable, and become the memory of arrays and tensors:
        the caller must not touch them again. Tensors that were saved from
        another device than the CPU go to ``device``, or with "saved" back to
        theirs; without one they come back on the CPU.

        This runs the code that pickled parts name if the writer is trusted;
        otherwise only that of classes which were allowed.

        Raises ManifestCorruptError for what cannot be built,
        UntrustedPickleError for what would need trust, LimitExceededError, and
        CheckpointStoreError for a missing class, a type that nobody registered
        or an error in the code of a class.
        """
        self._check_blocks(blocks)
        return self._built(
            self._builder(blocks, device),
            lambda builder: {field: builder.field(field) for field in self._roots},
        )

    def build_nodes(
        self, refs: Iterable[Ref], blocks: Mapping[tuple[str, int], memoryview], *, device: str | None = None
    ) -> dict[Ref, Any]:
        """Return the values of the nodes that this plan is a ``part`` for. See ``build``."""
        self._check_blocks(blocks)
        return self._built(
            self._builder(blocks, device), lambda builder: {ref: builder.node(ref) for ref in refs}
        )

    def _check_blocks(self, blocks: Mapping[tuple[str, int], memoryview]) -> None:
        if self._wanted:
            raise ManifestCorruptError(f"the graphs of {sorted(self._wanted)} are missing")
        for key, nbytes in self._uses.items():
            if key not in blocks or blocks[key].nbytes != nbytes:
                raise ManifestCorruptError(f"block {key[1]} of field {key[0]!r} is not {nbytes} bytes")

    def _builder(self, blocks: Mapping[tuple[str, int], memoryview], device: str | None) -> Builder:
        return Builder(
            self._graphs,
            blocks,
            registry=self._registry,
            device=device,
            allowed=self._allowed,
            limits=self._limits,
        )

    def _built(self, builder: Builder, build: Callable[[Builder], T]) -> T:
        with collector_paused():
            try:
                return build(builder)
            except BaseException:
                builder.give_up()
                raise
