"""A manifest is refused as early as can be: too large before it is sent, damaged by its header alone."""

from __future__ import annotations

import re

import pytest
from forge import DATA, DRAFT, LIMITS, SOURCE, parts

from ckptstore import Limits
from ckptstore.errors import FormatError, LimitExceededError
from ckptstore.manifest import HEADER_BYTES, encode, summary_end


def test_a_manifest_is_as_large_as_its_limits_and_no_larger() -> None:
    sizes = {"max_manifest_stored_bytes": len(DATA), "max_manifest_raw_bytes": sum(map(len, parts()))}
    assert encode(DRAFT, Limits(**sizes)) == DATA
    for limit, size in sizes.items():
        with pytest.raises(LimitExceededError, match=rf"at most {size - 1} are allowed: .*Limits\.{limit}"):
            encode(DRAFT, Limits(**{**sizes, limit: size - 1}))


def test_a_damaged_header_is_refused_before_more_is_read() -> None:
    for position in range(HEADER_BYTES):
        head = bytearray(DATA[:HEADER_BYTES])
        head[position] ^= 1
        with pytest.raises(FormatError, match=re.escape(SOURCE.key)):
            summary_end(bytes(head), SOURCE, LIMITS)
