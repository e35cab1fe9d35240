"""A storage of one's own behind the store: a function that gives the backend takes the place of a URL."""

from __future__ import annotations

import pytest

from ckptstore import Backend, ObjectInfo
from ckptstore.backends.memory import MemoryBackend
from ckptstore.errors import BackendError, ConfigError, StoreNotFoundError, UnavailableError


class Own(MemoryBackend):
    """Knows whether it was closed, and how it was made."""

    def __init__(self, space, executor):
        super().__init__(space, name="own")
        self.executor = executor
        self.closed = False

    async def aclose(self):
        self.closed = True
        await super().aclose()


class Shelf:
    """Makes backends over one space, and remembers them."""

    def __init__(self):
        self.space = {}
        self.made = []

    async def __call__(self, executor):
        self.made.append(Own(self.space, executor))
        return self.made[-1]


def test_a_store_over_a_backend_of_ones_own_saves_and_loads(open_store):
    shelf = Shelf()
    saved = open_store(shelf).save("a/b", {"x": [1, 2]})
    assert open_store(shelf).load("a/b") == {"x": [1, 2]}
    assert open_store(shelf).url == "memory://own"
    assert any(key.startswith("manifests/") and saved.ref.name in key for key in shelf.space)


def test_the_store_closes_the_backend(open_store):
    shelf = Shelf()
    open_store(shelf).close()
    assert [backend.closed for backend in shelf.made] == [True]


def test_the_backend_is_closed_when_the_store_cannot_be_opened(open_store):
    shelf = Shelf()
    with pytest.raises(StoreNotFoundError):
        open_store(shelf, create=False)
    assert [backend.closed for backend in shelf.made] == [True]


def test_the_executor_runs_blocking_calls(open_store):
    shelf = Shelf()
    store = open_store(shelf)
    assert shelf.made[0].executor.submit(sum, [1, 2]).result(10) == 3
    store.close()


def test_what_the_function_raises_is_raised(open_store):
    async def failing(executor):
        raise UnavailableError("the storage is not there")

    with pytest.raises(BackendError, match="not there"):
        open_store(failing)


def test_options_belong_to_the_function(open_store):
    with pytest.raises(ConfigError, match="options go with a URL"):
        open_store(Shelf(), endpoint_url="http://127.0.0.1")


def test_the_contract_is_public():
    assert issubclass(Own, Backend)
    assert ObjectInfo("a/b", 1, 2.0).seen_s is None
