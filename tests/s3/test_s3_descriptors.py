"""A process that may open no more sockets: told as what it is, and over when some are free again."""

from __future__ import annotations

import pytest
from descriptors import only
from s3_rig import DATA, VERBS, over

from ckptstore.errors import UnavailableError


@pytest.mark.parametrize("verb", ["put", "list"])
def test_a_request_without_a_socket_is_an_error_and_works_when_there_is_one(
    verb, opened, stored, server, run
):
    async def scenario(backend):
        with only(0), pytest.raises(UnavailableError, match=r"(?i)too many open files"):
            await VERBS[verb](backend)
        await VERBS[verb](backend)
        assert await backend.get("a/b") == DATA

    # Past the proxy: that is of this process, and would have no sockets either.
    over(opened, run, scenario, endpoint_url=server.endpoint_url)
