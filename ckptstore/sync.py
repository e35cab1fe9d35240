"""The blocking twin: the same store for callers without an event loop."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, overload

from ckptstore import _pending
from ckptstore._blocking_handle import CheckpointHandle
from ckptstore._life import BackendFactory
from ckptstore._loop import LoopThread
from ckptstore._outcome import CapturedSave, PendingSave
from ckptstore._trust import Trusted
from ckptstore._upkeep import What
from ckptstore.checkpoint import Checkpoint, CheckpointRef, Manifest
from ckptstore.config import StoreConfig
from ckptstore.diff import Diff
from ckptstore.errors import StoreClosedError
from ckptstore.garbage import GCReport
from ckptstore.retention import Keep
from ckptstore.serializers import Registry
from ckptstore.store import AsyncCheckpointStore
from ckptstore.verify import VerifyReport

__all__ = ["CheckpointStore"]

_log = logging.getLogger("ckptstore")


class CheckpointStore:
    """AsyncCheckpointStore for blocking code: the same methods, results and errors.

    It runs on a loop thread of its own, so it also works where a loop is
    running (a notebook). Use it as a context manager, or ``close`` it. Without
    that, the interpreter's end waits for background saves, up to
    ``StoreConfig.exit_timeout_s``. All methods may be called from any thread;
    in a forked child they raise ForkedProcessError.
    """

    def __init__(self, store: AsyncCheckpointStore, loop: LoopThread) -> None:
        self._store = store
        self._loop = loop

    @classmethod
    def open(
        cls,
        url: str | BackendFactory,
        *,
        config: StoreConfig | None = None,
        create: bool = True,
        registry: Registry | None = None,
        **backend_options: object,
    ) -> CheckpointStore:
        """See AsyncCheckpointStore.open."""
        store: CheckpointStore | None = None
        loop = LoopThread(lambda: store._finish() if store is not None else None)
        try:
            opened = loop.call(
                AsyncCheckpointStore.open(
                    url, config=config, create=create, registry=registry, **backend_options
                )
            )
        except BaseException:
            loop.stop()
            raise
        store = cls(opened, loop)
        return store

    @property
    def url(self) -> str:
        """Where the store is, without credentials."""
        return self._store.url

    @property
    def store_id(self) -> str:
        """The store's own id, 32 hex digits; references carry it."""
        return self._store.store_id

    @overload
    def save(
        self,
        collection: str,
        values: Mapping[str, object],
        *,
        label: str | None = None,
        run: str | None = None,
        metadata: Mapping[str, object] | None = None,
        attributes: Mapping[str, object] | None = None,
        parent: CheckpointRef | None = None,
        keep: Keep | None = None,
        protect: Iterable[Checkpoint | CheckpointRef] = (),
        wait: Literal[True] = True,
    ) -> Checkpoint: ...
    @overload
    def save(
        self,
        collection: str,
        values: Mapping[str, object],
        *,
        label: str | None = None,
        run: str | None = None,
        metadata: Mapping[str, object] | None = None,
        attributes: Mapping[str, object] | None = None,
        parent: CheckpointRef | None = None,
        keep: Keep | None = None,
        protect: Iterable[Checkpoint | CheckpointRef] = (),
        wait: Literal[False],
    ) -> PendingSave: ...
    @overload
    def save(
        self,
        collection: str,
        values: Mapping[str, object],
        *,
        label: str | None = None,
        run: str | None = None,
        metadata: Mapping[str, object] | None = None,
        attributes: Mapping[str, object] | None = None,
        parent: CheckpointRef | None = None,
        keep: Keep | None = None,
        protect: Iterable[Checkpoint | CheckpointRef] = (),
        wait: bool,
    ) -> Checkpoint | PendingSave: ...
    def save(
        self,
        collection: str,
        values: Mapping[str, object],
        *,
        label: str | None = None,
        run: str | None = None,
        metadata: Mapping[str, object] | None = None,
        attributes: Mapping[str, object] | None = None,
        parent: CheckpointRef | None = None,
        keep: Keep | None = None,
        protect: Iterable[Checkpoint | CheckpointRef] = (),
        wait: bool = True,
    ) -> Checkpoint | PendingSave:
        """See AsyncCheckpointStore.save."""
        saved = self._loop.call(
            self._store.save(
                collection,
                values,
                label=label,
                run=run,
                metadata=metadata,
                attributes=attributes,
                parent=parent,
                keep=keep,
                protect=protect,
                wait=wait,
            )
        )
        return PendingSave(saved, self._loop) if isinstance(saved, _pending.PendingSave) else saved

    def capture(
        self,
        collection: str,
        values: Mapping[str, object],
        *,
        label: str | None = None,
        run: str | None = None,
        metadata: Mapping[str, object] | None = None,
        attributes: Mapping[str, object] | None = None,
        parent: CheckpointRef | None = None,
        keep: Keep | None = None,
        protect: Iterable[Checkpoint | CheckpointRef] = (),
    ) -> CapturedSave:
        """See AsyncCheckpointStore.capture."""
        captured = self._loop.call(
            self._store.capture(
                collection,
                values,
                label=label,
                run=run,
                metadata=metadata,
                attributes=attributes,
                parent=parent,
                keep=keep,
                protect=protect,
            )
        )
        return CapturedSave(captured, self._loop)

    def reserve(self, nbytes: int, *, wait: bool = True) -> None:
        """See AsyncCheckpointStore.reserve."""
        self._loop.call(self._store.reserve(nbytes, wait=wait))

    def begin(self, collection: str, *, anew: bool = False) -> None:
        """See AsyncCheckpointStore.begin."""
        self._loop.call(self._store.begin(collection, anew=anew))

    def load(
        self,
        what: What,
        *,
        fields: Sequence[str] | None = None,
        leaves: Mapping[str, Sequence[str]] | None = None,
        into: Mapping[str, object] | None = None,
        inplace: bool = False,
        trusted: Trusted = False,
        device: str | None = None,
        fallback: int = 0,
    ) -> dict[str, Any]:
        """See AsyncCheckpointStore.load."""
        return self._loop.call(
            self._store.load(
                what,
                fields=fields,
                leaves=leaves,
                into=into,
                inplace=inplace,
                trusted=trusted,
                device=device,
                fallback=fallback,
            )
        )

    def handle(
        self,
        what: What,
        *,
        fields: Sequence[str] | None = None,
        trusted: Trusted = False,
        device: str | None = None,
    ) -> CheckpointHandle:
        """See AsyncCheckpointStore.handle."""
        opened = self._loop.call(self._store.handle(what, fields=fields, trusted=trusted, device=device))
        return CheckpointHandle(opened, self._loop)

    def allow(self, cls: type[Any]) -> None:
        """See AsyncCheckpointStore.allow."""
        self._store.allow(cls)

    def inspect(self, what: What, *, codecs: bool = False) -> Manifest:
        """See AsyncCheckpointStore.inspect."""
        return self._loop.call(self._store.inspect(what, codecs=codecs))

    def diff(self, a: What, b: What) -> Diff:
        """See AsyncCheckpointStore.diff."""
        return self._loop.call(self._store.diff(a, b))

    def latest(
        self, collection: str, *, label: str | None = None, run: str | None = None, fallback: int = 0
    ) -> Checkpoint | None:
        """See AsyncCheckpointStore.latest."""
        return self._loop.call(self._store.latest(collection, label=label, run=run, fallback=fallback))

    def list(
        self, collection: str | None = None, *, label: str | None = None, run: str | None = None
    ) -> Iterator[Checkpoint]:
        """See AsyncCheckpointStore.list."""
        return self._loop.iterate(self._store.list(collection, label=label, run=run))

    def retain(
        self,
        collection: str,
        keep: Keep,
        *,
        run: str | None = None,
        protect: Iterable[Checkpoint | CheckpointRef] = (),
        dry_run: bool = False,
    ) -> builtins.list[Checkpoint]:
        """See AsyncCheckpointStore.retain."""
        return self._loop.call(
            self._store.retain(collection, keep, run=run, protect=protect, dry_run=dry_run)
        )

    def delete(self, what: What) -> None:
        """See AsyncCheckpointStore.delete."""
        self._loop.call(self._store.delete(what))

    def undelete(self, what: What) -> None:
        """See AsyncCheckpointStore.undelete."""
        self._loop.call(self._store.undelete(what))

    def pin(self, what: What) -> None:
        """See AsyncCheckpointStore.pin."""
        self._loop.call(self._store.pin(what))

    def unpin(self, what: What) -> None:
        """See AsyncCheckpointStore.unpin."""
        self._loop.call(self._store.unpin(what))

    def collect_garbage(self, *, dry_run: bool = False, force: bool = False) -> GCReport:
        """See AsyncCheckpointStore.collect_garbage."""
        return self._loop.call(self._store.collect_garbage(dry_run=dry_run, force=force))

    def verify(
        self,
        what: What | None = None,
        *,
        sample: float | None = None,
        seed: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> VerifyReport:
        """See AsyncCheckpointStore.verify."""
        return self._loop.call(self._store.verify(what, sample=sample, seed=seed, progress=progress))

    def close(self) -> None:
        """See AsyncCheckpointStore.aclose."""
        if self._loop.stopped:
            return
        try:
            self._loop.call(self._store.aclose())
        finally:
            self._loop.stop()

    def __enter__(self) -> CheckpointStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception as exc:
            if error is None:
                raise
            # The body's own exception goes on; this one was not asked for, but must be heard.
            _log.error("while closing the store: %s", exc)

    def _finish(self) -> None:
        """The interpreter is ending and nobody closed the store: let what is in flight finish."""
        try:
            unfinished = self._loop.call(self._store._finish())
        except StoreClosedError:
            return  # another thread was first
        if unfinished:
            _log.error("the process ended before these saves were committed: %s", ", ".join(unfinished))
        self._loop.stop()
