"""A manifest larger than the limits is refused before it is sent."""

from __future__ import annotations

import pytest
from forge import DATA, DRAFT, parts

from ckptstore import Limits
from ckptstore.errors import LimitExceededError
from ckptstore.manifest import encode


def test_a_manifest_is_as_large_as_its_limits_and_no_larger() -> None:
    sizes = {"max_manifest_stored_bytes": len(DATA), "max_manifest_raw_bytes": sum(map(len, parts()))}
    assert encode(DRAFT, Limits(**sizes)) == DATA
    for limit, size in sizes.items():
        with pytest.raises(LimitExceededError, match=rf"at most {size - 1} are allowed: .*Limits\.{limit}"):
            encode(DRAFT, Limits(**{**sizes, limit: size - 1}))
