"""Options: every wrong one is refused by name, before anything is opened."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest

from ckptstore import Limits, StoreConfig
from ckptstore.errors import ConfigError

NO_COUNT = [0, -1, 1.0, "1", None, True, False, math.nan, math.inf, 2**62 + 1, 10**400, [1]]
NO_SECONDS = [
    0,
    0.0,
    -1,
    -0.5,
    math.nan,
    math.inf,
    -math.inf,
    "1",
    True,
    False,
    [1],
    1j,
    10**400,
    1e300,
    1.1e9,
]
NO_CHOICE = ["", "RAW", "zip", 1, True, None, b"raw", ["raw"], {"raw": 1}]
COUNTS = ("chunk_bytes", "memory_bytes", "encode_workers", "io_concurrency")
SECONDS = ("exit_timeout_s", "grace_s", "max_save_s")
CHOICES = ("codec", "durability", "on_busy")


def test_the_defaults_fit_together() -> None:
    config = StoreConfig()
    assert config.grace_s == 86_400
    assert config.limits == Limits()
    assert config.encode_workers >= 2


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *((option, value) for option in COUNTS for value in NO_COUNT),
        *(
            (option, value)
            for option in SECONDS
            for value in [*NO_SECONDS, *([] if option == "max_save_s" else [None])]
        ),
        *((option, value) for option in CHOICES for value in NO_CHOICE),
        *(("inline_bytes", value) for value in [-1, 64 * 1024 + 1, 1.0, "1", None, True]),
        *(("exclusive", value) for value in [0, 1, "no", "", None]),
        *(("limits", value) for value in [None, {}, {"max_dims": 1}, 64, Limits]),
    ],
)
def test_a_wrong_option_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{option} "):
        StoreConfig(**{option: value})


@pytest.mark.parametrize("option", [item.name for item in dataclasses.fields(Limits)])
@pytest.mark.parametrize("value", NO_COUNT)
def test_a_wrong_limit_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{option} "):
        Limits(**{option: value})


@pytest.mark.parametrize(
    ("option", "most"),
    [
        ("chunk_bytes", 64 * 2**20),
        ("encode_workers", 256),
        ("io_concurrency", 1024),
        ("memory_bytes", 2**62),
        ("inline_bytes", 65_536),
        ("exit_timeout_s", 1e9),
        ("grace_s", 1e9),
    ],
)
def test_the_largest_value_fits_and_one_more_does_not(option: str, most: Any) -> None:
    assert getattr(StoreConfig(**{option: most}), option) == most
    with pytest.raises(ConfigError, match=re.escape(f"{most:g}" if type(most) is float else str(most))):
        StoreConfig(**{option: most + 1})


@pytest.mark.parametrize(
    ("option", "most"),
    [("max_manifest_stored_bytes", 2**32 - 1), ("max_manifest_raw_bytes", 2**32 - 1), ("max_depth", 256)],
)
def test_a_limit_that_the_format_cannot_reach_is_refused(option: str, most: int) -> None:
    assert getattr(Limits(**{option: most}), option) == most
    with pytest.raises(ConfigError, match=str(most)):
        Limits(**{option: most + 1})


def test_a_short_grace_needs_exclusive_use() -> None:
    assert StoreConfig(grace_s=3600).grace_s == 3600
    assert StoreConfig(grace_s=0.5, exclusive=True).grace_s == 0.5
    with pytest.raises(ConfigError, match=r"grace_s .*exclusive=True"):
        StoreConfig(grace_s=3599.9)


def test_a_grace_finer_than_the_times_of_files_is_refused() -> None:
    assert StoreConfig(grace_s=0.1, exclusive=True).grace_s == 0.1
    with pytest.raises(ConfigError, match=r"grace_s is 0\.099; below 0\.1 s"):
        StoreConfig(grace_s=0.099, exclusive=True)


@pytest.mark.parametrize("max_save_s", [3600, 3600.0, 7200])
def test_a_save_as_long_as_the_grace_is_refused(max_save_s: float) -> None:
    with pytest.raises(ConfigError, match=r"max_save_s .*below grace_s"):
        StoreConfig(grace_s=3600, max_save_s=max_save_s)
    assert StoreConfig(grace_s=7201, max_save_s=max_save_s)


def test_options_go_by_name_and_do_not_change() -> None:
    with pytest.raises(TypeError):
        StoreConfig(8)  # type: ignore[misc]
    with pytest.raises(TypeError):
        StoreConfig(chunk_size=8)  # type: ignore[call-arg]
    with pytest.raises(dataclasses.FrozenInstanceError):
        StoreConfig().grace_s = 0  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().max_dims = 0  # type: ignore[misc]
