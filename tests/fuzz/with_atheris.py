"""Run as a script, where the package atheris is installed: inputs that are led by which code they reach.

    python with_atheris.py                 # every target, CKPTSTORE_FUZZ_S seconds each (60)
    python with_atheris.py TARGET [options of libFuzzer, as -max_total_time=600, and folders of inputs]

What it finds lies in the folder it is started in, and is worth a place in the corpus.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "security")]

with atheris.instrument_imports(include=["ckptstore"]):
    from fuzzing import MAX_BYTES, corpus
    from targets import TARGETS, refused

    from ckptstore.errors import CheckpointStoreError

SECONDS = os.environ.get("CKPTSTORE_FUZZ_S", "60")
UNPICKLER = "unpickler"


def unpickler() -> tuple[Callable[[bytes], None], list[bytes]]:
    """The pickles of a load without trust, under the wire of the security tests, and streams to begin with."""
    with atheris.instrument_imports(include=["ckptstore"]):
        from fuzz_streams import SEEDS
        from gadgets import GADGETS
        from gadgets_inside import INSIDE
        from streams import load
        from tripwire import armed, prepare
    prepare()

    def one(data: bytes) -> None:
        with armed() as events:
            with suppress(CheckpointStoreError):
                load(data, refs=[["list", [1]], ["dict", []]], buffers=[b"buffer"])
            assert not events, events

    return one, SEEDS + [gadget.stream for gadget in (*GADGETS.values(), *INSIDE.values())]


def fuzz(name: str, options: list[str]) -> None:
    """Fuzz one target until something is found or the time is over; it ends the process."""
    if name == UNPICKLER:
        one, inputs = unpickler()
    else:
        target, inputs = TARGETS[name], corpus(name)

        def one(data: bytes) -> None:
            refused(target, data)

    with tempfile.TemporaryDirectory() as folder:
        for n, data in enumerate(inputs):
            Path(folder, str(n)).write_bytes(data)
        limits = [f"-malloc_limit_mb={MAX_BYTES >> 20}", "-timeout=5", "-rss_limit_mb=2048"]
        atheris.Setup([sys.argv[0], *options, *limits, folder], one)
        atheris.Fuzz()


def main() -> None:
    if len(sys.argv) > 1:
        fuzz(sys.argv[1], sys.argv[2:])
        return
    failed = []
    for name in (*TARGETS, UNPICKLER):
        print(f"{name}: {SECONDS} s", flush=True)
        ended = subprocess.run([sys.executable, __file__, name, f"-max_total_time={SECONDS}"], check=False)
        if ended.returncode:
            failed.append(name)
    sys.exit(f"something was found: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
