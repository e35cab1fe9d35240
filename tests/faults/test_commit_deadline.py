"""The commit and the save's deadline: whoever sends or repeats its requests, none begins later (protocol S4)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from test_commit import SetClock

from ckptstore import _commit
from ckptstore._commit import Deadline, commit
from ckptstore.backends.base import Buffer, ObjectInfo
from ckptstore.backends.memory import MemoryBackend
from ckptstore.backends.retry import RetryBackend
from ckptstore.errors import (
    AccessDeniedError,
    BackendError,
    CommitUnknownError,
    SaveExpiredError,
    UnavailableError,
)

KEY = "manifests/c/f"
DATA = b"the manifest"
LIMIT_S = 43_200.0


class Failing(MemoryBackend):
    """Notes when it is sent something; its puts end as ``ends`` say, then well.

    An end of ``(error, True)`` comes when the object was stored all the same.
    """

    def __init__(self, clock: SetClock, *ends: tuple[BackendError, bool]) -> None:
        super().__init__(clock=clock.wall_s)
        self._time = clock
        self._ends = list(ends)
        self.sent_s: list[float] = []

    async def put(self, key: str, data: Buffer, **options: Any) -> ObjectInfo:
        self.sent_s.append(self._time.boot)
        error, arrives = self._ends.pop(0) if self._ends else (None, True)
        info = await super().put(key, data, **options) if arrives else None
        if error is not None:
            raise error
        assert info is not None
        return info


def fails(arrives: bool = False, kind: type[BackendError] = UnavailableError) -> tuple[BackendError, bool]:
    return kind("the test's fault"), arrives


class Committing:
    """A commit with so many seconds left, behind the wrapper that tries again; pauses move the clock."""

    def __init__(self, left_s: float, *ends: tuple[BackendError, bool]) -> None:
        self.clock = SetClock()
        self.failing = Failing(self.clock, *ends)
        self.deadline = Deadline(self.clock, self.clock.read(), LIMIT_S)
        self.until_s = self.clock.boot + LIMIT_S
        self.clock.advance("both", LIMIT_S - left_s)
        self.backend = RetryBackend(
            self.failing, sleep=self.sleep, clock=self.clock.boot_s, draw=lambda _, most: most
        )

    async def sleep(self, pause_s: float) -> None:
        self.clock.advance("both", pause_s)

    def run(self) -> None:
        asyncio.run(commit(self.backend, KEY, DATA, deadline=self.deadline, chunks=[]))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_commit, "_BACKOFF_S", (0.0, 0.0))


# Pauses of 0.1, 0.2, 0.4 … s: the n-th try begins 0.1 · (2ⁿ⁻¹ - 1) s after the first, the eighth after 12.7 s,
# and as many again follow.
@pytest.mark.parametrize(("left_s", "n_tries"), [(0.05, 1), (1.0, 4), (12.6, 7), (20.0, 15), (1000.0, 64)])
def test_no_try_of_a_commit_begins_after_the_deadline(left_s: float, n_tries: int) -> None:
    committing = Committing(left_s, *[fails()] * 1000)
    with pytest.raises(CommitUnknownError, match=KEY):
        committing.run()
    assert len(committing.failing.sent_s) == n_tries
    assert committing.failing.sent_s[-1] <= committing.until_s
    assert committing.failing.space == {}


def test_a_commit_that_waits_for_its_turn_until_it_is_too_late_is_not_sent() -> None:
    committing = Committing(1.0)

    async def main() -> None:
        limit = committing.backend.limit
        places = [limit.place() for _ in range(limit.limit)]
        for place in places:
            await place.__aenter__()
        waiting = asyncio.ensure_future(
            commit(committing.backend, KEY, DATA, deadline=committing.deadline, chunks=[])
        )
        await asyncio.sleep(0)
        committing.clock.advance("boot", 2.0)
        for place in places:
            await place.__aexit__(None, None, None)
        with pytest.raises(SaveExpiredError, match="nothing was committed"):
            await waiting

    asyncio.run(main())
    assert committing.failing.sent_s == []


def test_a_commit_whose_last_answer_in_time_was_lost_is_found() -> None:
    committing = Committing(0.05, fails(arrives=True))
    committing.run()
    assert len(committing.failing.sent_s) == 1
    assert committing.failing.space[KEY][0] == DATA


@pytest.mark.parametrize("arrives", [True, False])
def test_a_refusal_after_a_lost_answer_is_no_definite_one(arrives: bool) -> None:
    """The first request may have arrived: whoever is told "refused" would believe that nothing is there."""
    committing = Committing(1000.0, fails(arrives), fails(kind=AccessDeniedError))
    with pytest.raises(CommitUnknownError, match=KEY) as caught:
        committing.run()
    assert isinstance(caught.value.__cause__, AccessDeniedError)
    assert len(committing.failing.sent_s) == 2


def test_a_refusal_of_the_first_request_is_definite() -> None:
    committing = Committing(1000.0, fails(kind=AccessDeniedError))
    with pytest.raises(AccessDeniedError):
        committing.run()
    assert len(committing.failing.sent_s) == 1
