"""Whether to encode: as long as the workers make encoded bytes much faster than the storage takes them.

Where the storage is the slower side, encoding costs no time and the fewer bytes
save some; where it keeps up, encoding is what a save would wait for. Nothing
here reads a clock or a file: what was done, and how long it took, is told.
"""

from __future__ import annotations

from collections import deque
from statistics import median

__all__ = ["EncodingChoice", "Pace"]

MIB = 1024 * 1024

_HALF_LIFE_BYTES = 64 * MIB
"""What was measured this many bytes ago counts half."""
_DWELL_BYTES = 32 * MIB
"""So much is put before anything is judged, and between two changes: one slow chunk decides nothing."""
_MAX_PROBE_BYTES = 256 * MIB
"""While nothing is encoded, one chunk in so many bytes is, to know what encoding would take by now; sooner at first."""
_N_SAMPLES = 5
"""Encoded chunks whose median counts: fresh memory, or a core that was taken away, make some of them slow."""
_HEADROOM = 1.6
"""Encoding is taken up where the workers could feed the storage this many times: the rest is the training's."""
_LEAST_HEADROOM = 1.25
"""Below this it is given up. The gap between the two keeps a storage in the middle from swaying it."""
_WAITED = 0.1
"""A barrier that takes this part of a save or more shows how fast the storage is; a shorter one, that it keeps up."""
_FADING = 1.1
"""A storage that kept up is believed to be this much faster than it was known to be, save by save."""


class Pace:
    """Bytes a second, of which the last ``half_life_bytes`` weigh as much as all before them."""

    def __init__(self, half_life_bytes: int = _HALF_LIFE_BYTES) -> None:
        self._half_life_bytes = half_life_bytes
        self._bytes = 0.0
        self._seconds = 0.0

    def add(self, nbytes: int, seconds: float) -> None:
        """Take note of ``nbytes`` that took ``seconds``."""
        kept = 0.5 ** (nbytes / self._half_life_bytes)
        self._bytes = self._bytes * kept + nbytes
        self._seconds = self._seconds * kept + seconds

    @property
    def bytes_per_s(self) -> float | None:
        """The pace, None as long as nothing is known."""
        if not self._bytes:
            return None
        return self._bytes / self._seconds if self._seconds > 0 else float("inf")


class EncodingChoice:
    """Says for each chunk whether it is worth encoding, from what the ones before it took.

    ``n_encoders`` chunks are encoded at once. Starts by encoding, since of that
    there is the most to learn. For one thread.
    """

    def __init__(self, n_encoders: int) -> None:
        self._n_encoders = n_encoders
        self._encoding: deque[float] = deque(maxlen=_N_SAMPLES)
        self._putting = Pace()
        self._disk = float("inf")
        self._n_cold = n_encoders
        self._since_change_bytes = 0
        self._since_probe_bytes = 0
        self._probe_bytes = _DWELL_BYTES
        self._worth = True

    def ask(self) -> bool:
        """Return whether the next chunk should be encoded; it is then on its way."""
        if self._worth:
            return True
        if self._since_probe_bytes < self._probe_bytes:
            return False
        self._since_probe_bytes = 0
        self._probe_bytes = min(2 * self._probe_bytes, _MAX_PROBE_BYTES)
        return True

    def encoded(self, stored_bytes: int, seconds: float) -> None:
        """A worker took ``seconds`` to make a chunk ready that encoding has shrunk to ``stored_bytes``."""
        if self._n_cold:  # the first chunk of a worker touches fresh memory
            self._n_cold -= 1
        else:
            self._encoding.append(stored_bytes / seconds if seconds > 0 else float("inf"))

    def put(self, stored_bytes: int, seconds: float, n_at_once: float) -> None:
        """A put of ``stored_bytes`` took ``seconds``, waiting for its turn included, as one of ``n_at_once``."""
        self._putting.add(stored_bytes, seconds / n_at_once)
        self._since_change_bytes += stored_bytes
        self._since_probe_bytes += stored_bytes
        self._judge()

    def flushed(self, stored_bytes: int, seconds: float, waited_s: float) -> None:
        """All puts of a save are durable, ``seconds`` after the first began; the last ``waited_s`` were for that.

        A storage that takes bytes into memory and writes them later shows only here how fast it is.
        """
        if stored_bytes < _DWELL_BYTES:
            return
        pace = stored_bytes / seconds if seconds > 0 else float("inf")
        self._disk = pace if waited_s >= _WAITED * seconds else max(pace, self._disk * _FADING)
        self._judge()

    def _judge(self) -> None:
        putting = self._putting.bytes_per_s
        if not self._encoding or putting is None or self._since_change_bytes < _DWELL_BYTES:
            return
        encoding, storage = median(self._encoding) * self._n_encoders, min(putting, self._disk)
        headroom = encoding / storage if storage > 0 else float("inf")
        worth = headroom >= (_LEAST_HEADROOM if self._worth else _HEADROOM)
        if worth != self._worth:
            self._worth = worth
            self._since_change_bytes = self._since_probe_bytes = 0
            self._probe_bytes = _DWELL_BYTES
