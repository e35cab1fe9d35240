"""Run as a script, where the package atheris is installed: inputs that are led by which code they reach.

    python with_atheris.py TARGET [options of libFuzzer, as -max_total_time=600, and folders of inputs]

What it finds is worth a place in the corpus.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["ckptstore"]):
    from fuzzing import MAX_BYTES, corpus
    from targets import TARGETS, refused


def main() -> None:
    target = TARGETS[sys.argv.pop(1)]

    def one(data: bytes) -> None:
        refused(target, data)

    with tempfile.TemporaryDirectory() as folder:
        for n, data in enumerate(corpus(target.__name__)):
            Path(folder, str(n)).write_bytes(data)
        limits = [f"-malloc_limit_mb={MAX_BYTES >> 20}", "-timeout=5", "-rss_limit_mb=1024"]
        atheris.Setup([*sys.argv, *limits, folder], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
