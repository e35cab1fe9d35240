"""The model of a store with collections on a real S3 server: fewer steps, two clients, the server's own clock."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
import seaweed
from hypothesis import settings
from hypothesis.stateful import rule, run_state_machine_as_test
from test_gc_stateful import GRACE_S, SETTINGS, SHARES, CollectingModel
from test_store_model import CONFIG

from ckptstore import Backend, CheckpointStore, ObjectInfo
from ckptstore.backends import open_backend
from ckptstore.errors import BackendError
from ckptstore.testing import RecordingBackend


class OlderBackend(RecordingBackend):
    """Tells of objects that they are older by the time that was said to have passed since they were put."""

    def __init__(self, inner: Backend, model: S3Model) -> None:
        super().__init__(inner)
        self._model = model

    def _older(self, info: ObjectInfo) -> ObjectInfo:
        passed_s = self._model.now_s - self._model.put_at.get(info.key, 0.0)
        return replace(info, modified_s=info.modified_s - passed_s)

    async def put(self, key: str, data: Any, **options: Any) -> ObjectInfo:
        info = await super().put(key, data, **options)
        self._model.put_at.setdefault(key, self._model.now_s)
        return self._older(info)

    async def head(self, key: str) -> ObjectInfo:
        return self._older(await super().head(key))

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        async with aclosing(super().list(prefix, after=after)) as listing:
            async for info in listing:
                yield self._older(info)

    async def delete(self, key: str) -> None:
        await super().delete(key)
        self._model.put_at.pop(key, None)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, BackendError]:
        failed = await super().delete_many(keys)
        for key in set(keys) - set(failed):
            self._model.put_at.pop(key, None)
        return failed


class S3Model(CollectingModel):
    kind = "s3"

    def __init__(self) -> None:
        super().__init__()
        self.url = seaweed.server().new_url()
        self.now_s = 0.0
        self.put_at: dict[str, float] = {}

    def _open(self) -> CheckpointStore:
        async def older(executor: Executor) -> Backend:
            options = seaweed.server().options
            return OlderBackend(
                await open_backend(self.url, config=CONFIG, executor=executor, create=True, **options), self
            )

        return CheckpointStore.open(older, config=CONFIG)

    @rule(share=SHARES)
    def pass_time(self, share: float) -> None:
        self._settle(0, 1)
        for store in self.stores:
            list(store.list("c"))  # waits for retention
        self.now_s += share * GRACE_S


@pytest.mark.parametrize(
    ("n_examples", "n_steps"),
    [(5, 14), pytest.param(100, 30, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])],
)
def test_any_sequence_on_a_real_server_gives_what_a_list_would(n_examples: int, n_steps: int) -> None:
    seaweed.server()  # skips where there is none
    chosen = settings(SETTINGS, max_examples=n_examples, stateful_step_count=n_steps, database=None)
    run_state_machine_as_test(S3Model, settings=chosen)
