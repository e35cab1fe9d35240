"""Pickles whose arrays, tensors and shared objects stay outside, as nodes of the graph."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ckptstore.errors import CheckpointStoreError, ManifestCorruptError
from ckptstore.serializers._opcodes import imported_names

if TYPE_CHECKING:
    from ckptstore.serializers._nodes import Node

__all__ = ["PROTOCOL", "Unit", "dump_unit", "load_unit"]

PROTOCOL = 5


class Unit:
    """One pickle stream: of one object, or of several that refer to one another in cycles.

    ``node`` stands for the stream. ``members`` travel inside it; ``roots`` are
    those of them that something outside refers to.
    """

    __slots__ = (
        "_names",
        "buffers",
        "claims",
        "members",
        "node",
        "queued",
        "refs",
        "roots",
        "runs",
        "stream",
    )

    def __init__(self, node: Node, members: list[Node], roots: list[Node]) -> None:
        self.node = node
        self.members = members
        self.roots = roots
        self.claims: list[int] = []
        """Ids of the objects inside that would have to be cut out if another stream met them."""
        self.runs = 0
        self.queued = False
        self.stream = b""
        self.refs: list[Node] = []
        self.buffers: list[tuple[memoryview, bool]] = []
        self._names: tuple[bytes, tuple[str, ...]] = (b"", ())

    @property
    def names(self) -> tuple[str, ...]:
        """What the stream imports, sorted: found in itself, because a ``__reduce__`` may name things unseen."""
        if self._names[0] is not self.stream:
            found = {f"{module}.{name}" for module, name in imported_names(self.stream)}
            self._names = (self.stream, tuple(sorted(found)))
        return self._names[1]

    @property
    def value(self) -> Any:
        """What is pickled: the object, or the tuple of the roots."""
        if self.node.tag == "pickle" and self.roots == [self.node]:
            return self.node.value
        return tuple(root.value for root in self.roots)


class _Pickler(pickle.Pickler):
    """Takes ``persistent_id`` as an attribute, which the class itself does not from Python 3.13 on."""


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
