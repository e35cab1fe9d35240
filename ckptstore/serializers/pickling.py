"""Pickles whose arrays, tensors and shared objects stay outside, as nodes of the graph."""

from __future__ import annotations

import copyreg
import io
import pickle
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ckptstore.errors import CheckpointStoreError, ManifestCorruptError
from ckptstore.serializers._opcodes import imported_names

if TYPE_CHECKING:
    from ckptstore.serializers._nodes import Node

__all__ = ["PROTOCOL", "Series", "Unit", "dump_unit", "load_unit"]

PROTOCOL = 5


class Unit:
    """One pickle stream: of one object, or of several.

    ``node`` stands for the stream. ``members`` travel inside it; ``roots`` are
    those of them that something outside refers to. Several objects are the
    parts of a cycle, or, ``in_row``, small ones of one type that share a stream
    because a stream for each would cost more than they do.
    """

    __slots__ = (
        "_names",
        "buffers",
        "claims",
        "in_row",
        "members",
        "node",
        "queued",
        "refs",
        "roots",
        "runs",
        "stream",
    )

    def __init__(
        self, node: Node, members: list[Node], roots: Sequence[Node], *, in_row: bool = False
    ) -> None:
        self.node = node
        self.members = members
        self.in_row = in_row
        self.roots: list[Node] = []
        for root in roots:
            self.add_root(root)
        self.claims: list[Any] = []
        """The objects inside that would have to be cut out if another stream met them."""
        self.runs = 0
        self.queued = False
        self.stream = b""
        self.refs: list[Node] = []
        self.buffers: list[tuple[memoryview, bool]] = []
        self._names: tuple[bytes, tuple[str, ...]] = (b"", ())

    def add_root(self, node: Node) -> None:
        """Let something outside refer to a member."""
        if node is not self.node:
            node.encoded = len(self.roots)
        self.roots.append(node)

    def close(self) -> None:
        """Let go of the objects."""
        self.members, self.roots, self.refs, self.claims, self.buffers = [], [], [], [], []
        self.node.unit = None

    def weight(self, n_refs: int, n_buffers: int) -> int:
        """Return the bytes of the arrays, tensors and buffers outside, but for the first so many."""
        n_bytes = sum(raw.nbytes for raw, _ in self.buffers[n_buffers:])
        for node in self.refs[n_refs:]:
            n_bytes += sum(extent.nbytes for extent in node.extents if extent is not None)
        return n_bytes

    @property
    def names(self) -> tuple[str, ...]:
        """What the stream imports, sorted: found in itself, because a ``__reduce__`` may name things unseen."""
        if self._names[0] is not self.stream:
            self._names = (self.stream, _sorted_names(self.stream))
        return self._names[1]

    @property
    def value(self) -> Any:
        """What is pickled: the object, or the tuple of the roots."""
        if self.node.tag == "pickle" and self.roots == [self.node]:
            return self.node.value
        return tuple(root.value for root in self.roots)


def _sorted_names(stream: bytes) -> tuple[str, ...]:
    if not _EXTENSIONS:
        # A pickler remembers each name that it imports: what follows the last such place need not be looked at.
        stream = stream[: stream.rfind(pickle.STACK_GLOBAL + pickle.MEMOIZE) + 2]
    return tuple(sorted({f"{module}.{name}" for module, name in imported_names(stream)}))


_EXTENSIONS: dict[Any, int] = copyreg._extension_registry  # type: ignore[attr-defined]


class _Pickler(pickle.Pickler):
    """Takes ``persistent_id`` as an attribute, which the class itself does not from Python 3.13 on."""


_PROTO, _FRAME = pickle.PROTO + bytes([PROTOCOL]), pickle.FRAME
_START = len(_PROTO) + len(_FRAME) + 8
"""Where the opcodes of a pickle of one frame begin."""


class Series:
    """Pickles of several objects, made one after another with one memo, that become one stream.

    What a pickle refers to may stand in one before it. Each object's bytes can
    be told, and the last one can be left out again if nothing follows it.
    """

    def __init__(self, persistent: Callable[[Any], int | None], buffer: Callable[[Any], None]) -> None:
        self._written: list[bytes] = []
        self._bodies: list[bytes] = []
        sink: Any = SimpleNamespace(write=self._written.append)
        self._pickler = _Pickler(sink, protocol=PROTOCOL, buffer_callback=buffer)
        # It is called for every object: an attribute costs one call less than a method.
        self._pickler.persistent_id = persistent  # type: ignore[method-assign]

    def add(self, value: Any) -> int | None:
        """Pickle one more object; return its bytes, or None if they are too many to stand with others."""
        written = self._written
        written.clear()
        self._pickler.dump(value)
        piece = written[0]
        # A pickler writes what is large in several frames, which cannot stand in the frame of a row.
        if (
            len(written) > 1
            or piece[:3] != _PROTO + _FRAME
            or piece[3:_START] != _length(len(piece) - _START)
        ):
            return None
        self._bodies.append(piece[_START:-1])
        return len(piece)

    def last(self) -> bytes:
        """Return the pickle of the last object alone: whole if it was the first."""
        return b"".join(self._written)

    def leave_out(self) -> None:
        """Take the last object's bytes out again. Nothing can be added after this."""
        self._bodies.pop()

    def stream(self) -> bytes:
        """Return the pickle of the tuple of all objects, in one frame."""
        body = b"".join([pickle.MARK, *self._bodies, pickle.TUPLE, pickle.STOP])
        return b"".join([_PROTO, _FRAME, _length(len(body)), body])


def _length(n: int) -> bytes:
    return n.to_bytes(8, "little")


def dump_unit(value: Any, persistent: Callable[[Any], int | None], buffer: Callable[[Any], None]) -> bytes:
    """Return the pickle of ``value``; ``persistent`` gives the ids of what stays outside it."""
    file = io.BytesIO()
    pickler = _Pickler(file, protocol=PROTOCOL, buffer_callback=buffer)
    # It is called for every object: an attribute costs one call less than a method.
    pickler.persistent_id = persistent  # type: ignore[method-assign]
    pickler.dump(value)
    return file.getvalue()


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: bytes, refs: Sequence[Any], buffers: Sequence[memoryview], field: str) -> None:
        super().__init__(io.BytesIO(stream), buffers=buffers)
        self._refs = refs
        self._field = field

    def persistent_load(self, pid: Any) -> Any:
        if type(pid) is not int or not 0 <= pid < len(self._refs):
            raise ManifestCorruptError(
                f"field {self._field!r}: a pickle refers to something it does not hold"
            )
        return self._refs[pid]

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return super().find_class(module_name, global_name)
        except (ImportError, AttributeError) as exc:
            raise CheckpointStoreError(
                f"field {self._field!r} needs {module_name}.{global_name}, which cannot be imported here "
                f"({type(exc).__name__}): make it importable under that name, or load other fields"
            ) from exc


def load_unit(
    stream: bytes, *, refs: Sequence[Any], buffers: Sequence[memoryview], field: str, names: Sequence[str]
) -> Any:
    """Return the object of a pickle. It runs code that the pickle names: call it only for trusted ones.

    Raises CheckpointStoreError naming the field if a class is missing or the code raises.
    """
    try:
        return _Unpickler(stream, refs, buffers, field).load()
    except CheckpointStoreError:
        raise
    except Exception as exc:
        what = ", ".join(names[:5]) or "plain objects"
        raise CheckpointStoreError(
            f"field {field!r}: restoring a pickled object failed with {type(exc).__name__}: {exc} "
            f"(it holds {what}): the classes may have changed since it was saved"
        ) from exc
