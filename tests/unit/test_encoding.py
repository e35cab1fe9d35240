"""Encoding is worth it while the storage is much the slower side, and one odd measurement changes nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ckptstore._encoding import EncodingChoice, Pace

MIB = 1024 * 1024
CHUNK = 8 * MIB
GB = 1e9


def save(choice, n_chunks, *, encode_gb_s=1.0, put_gb_s, disk_gb_s=None, ratio=0.8, n_workers=2, n_puts=2):
    """Play a save; what each chunk was stored as: True for encoded.

    ``disk_gb_s``: puts go into memory, and the barrier waits for a disk of that pace.
    """
    choices, stored, busy_s = [], 0, 0.0
    for _ in range(n_chunks):
        worth = choice.ask()
        choices.append(worth)
        nbytes = int(CHUNK * ratio) if worth else CHUNK
        made_s, put_s = (CHUNK / encode_gb_s / GB if worth else CHUNK / 4 / GB), nbytes / put_gb_s / GB
        if worth:
            choice.encoded(nbytes, made_s)
        choice.put(nbytes, put_s, n_puts)
        stored += nbytes
        busy_s += (made_s + put_s) / n_workers
    seconds = busy_s if disk_gb_s is None else max(busy_s, stored / disk_gb_s / GB)
    choice.flushed(stored, seconds, seconds - busy_s)
    return choices


def encodes(choice):
    """Whether it encodes one chunk after the other, not one for a look."""
    return choice.ask() and choice.ask()


def changes(choices):
    """How often it went from one way to the other, single chunks for a look aside."""
    choices = [
        one for one, before, after in zip(choices, [None, *choices], [*choices[1:], None], strict=False)
        if not (one and before is after is False)
    ]  # fmt: skip
    return sum(a != b for a, b in pairwise(choices))


def test_a_slow_link_gets_encoded_chunks():
    choices = save(EncodingChoice(2), 100, put_gb_s=0.02)
    assert all(choices)


def test_a_fast_storage_gets_raw_chunks_after_a_few():
    choices = save(EncodingChoice(2), 100, put_gb_s=3.0)
    assert choices[0]
    assert choices.count(True) * CHUNK <= 80 * MIB
    assert changes(choices) == 1


def test_many_slow_puts_at_once_are_a_fast_storage():
    assert not save(EncodingChoice(2), 100, put_gb_s=0.2, n_puts=32)[-1]
    assert save(EncodingChoice(2), 100, put_gb_s=0.2, n_puts=2)[-1]


def test_what_was_learnt_goes_on_into_the_next_save():
    choice = EncodingChoice(2)
    save(choice, 20, put_gb_s=3.0)
    assert save(choice, 10, put_gb_s=3.0).count(True) <= 1  # for a look


def test_now_and_then_a_chunk_is_encoded_for_a_look():
    choice = EncodingChoice(2)
    save(choice, 100, put_gb_s=3.0)
    choices = save(choice, 320, put_gb_s=3.0)
    assert 8 <= choices.count(True) <= 10
    assert changes(choices) == 0


def test_cores_that_became_free_are_noticed():
    choice = EncodingChoice(2)
    save(choice, 40, encode_gb_s=0.1, put_gb_s=0.1)
    assert not encodes(choice)
    save(choice, 600, encode_gb_s=1.0, put_gb_s=0.1)
    assert encodes(choice)


def test_a_process_that_starts_slowly_recovers():
    choice = EncodingChoice(2)
    save(choice, 12, encode_gb_s=0.01, put_gb_s=0.05)
    assert not encodes(choice)
    assert save(choice, 64, encode_gb_s=1.0, put_gb_s=0.05)[-1]


def test_a_core_that_is_taken_away_for_a_moment_changes_nothing():
    choice = EncodingChoice(2)
    save(choice, 40, put_gb_s=0.1)
    save(choice, 2, encode_gb_s=0.01, put_gb_s=0.1)
    assert all(save(choice, 40, put_gb_s=0.1))


def test_the_first_chunk_of_each_worker_tells_nothing():
    choice = EncodingChoice(2)
    for _ in range(2):
        choice.encoded(CHUNK, 10.0)
    assert all(save(choice, 40, put_gb_s=0.02))


def test_a_disk_that_is_slow_behind_its_cache_shows_at_the_barrier():
    choice = EncodingChoice(2)
    assert not save(choice, 40, put_gb_s=3.0, disk_gb_s=0.3)[-1]
    for _ in range(10):
        assert all(save(choice, 40, put_gb_s=3.0, disk_gb_s=0.3))


def test_a_disk_that_became_fast_is_noticed_in_time():
    choice = EncodingChoice(2)
    save(choice, 40, put_gb_s=3.0, disk_gb_s=0.6)
    assert encodes(choice)
    last = [save(choice, 40, put_gb_s=3.0, disk_gb_s=5.0)[-1] for _ in range(10)]
    assert not last[-1]


def test_a_link_that_became_slow_is_noticed_within_a_save():
    choice = EncodingChoice(2)
    save(choice, 40, put_gb_s=1.0)
    assert not encodes(choice)
    choices = save(choice, 60, put_gb_s=0.02)
    assert not choices[0]
    assert choices[-1]
    assert changes(choices) == 1


def test_cores_that_training_needs_are_not_taken_for_encoding():
    choice = EncodingChoice(2)
    assert not save(choice, 40, encode_gb_s=0.1, put_gb_s=0.1)[-1]


@pytest.mark.parametrize("ratio", [0.62, 0.8, 0.95])
@pytest.mark.parametrize("put_gb_s", [0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 1.0, 2.0])
def test_no_storage_makes_it_sway(put_gb_s, ratio):
    assert changes(save(EncodingChoice(2), 200, put_gb_s=put_gb_s, ratio=ratio)) <= 1


@pytest.mark.parametrize("ratio", [0.62, 0.8, 0.95])
@pytest.mark.parametrize("disk_gb_s", [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.6, 3.0])
def test_a_disk_in_the_middle_changes_it_seldom(disk_gb_s, ratio):
    choice = EncodingChoice(2)
    last = [save(choice, 40, put_gb_s=3.0, disk_gb_s=disk_gb_s, ratio=ratio)[-1] for _ in range(30)]
    assert changes(last) <= 6


def test_a_single_slow_put_changes_nothing():
    choice = EncodingChoice(2)
    save(choice, 40, put_gb_s=3.0)
    choice.put(64 * 1024, 0.005, 1)
    assert not encodes(choice)


def test_without_anything_to_encode_there_is_nothing_to_judge():
    choice = EncodingChoice(2)
    for _ in range(50):
        choice.put(CHUNK, 0.0, 2)
    assert encodes(choice)


def test_little_flushed_says_little():
    choice = EncodingChoice(2)
    save(choice, 40, put_gb_s=3.0)
    choice.flushed(MIB, 10.0, 10.0)
    assert not encodes(choice)


def test_times_of_zero_are_a_very_fast_storage():
    choice = EncodingChoice(2)
    for _ in range(20):
        choice.encoded(CHUNK, 0.01)
        choice.put(CHUNK, 0.0, 2)
    choice.flushed(20 * CHUNK, 0.0, 0.0)
    assert not encodes(choice)


def test_a_pace_forgets():
    pace = Pace(half_life_bytes=100)
    assert pace.bytes_per_s is None
    pace.add(100, 1.0)
    assert pace.bytes_per_s == 100
    for _ in range(60):
        pace.add(100, 0.1)
    assert pace.bytes_per_s == pytest.approx(1000)
