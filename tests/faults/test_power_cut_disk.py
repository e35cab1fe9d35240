"""Power cuts of a real file system: images of an ext4 disk, taken while a store is saving on it.

The disk is a file in memory behind a loop device, which holds only what the
file system has written to it: a copy of that file, taken in a moment when no
write is under way, is what a power cut would have left. Needs root and loop
devices; ``test_power_cut`` has the same promises everywhere.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from saving_on_a_disk import KEPT, config, is_values

from ckptstore import CheckpointStore
from ckptstore.errors import CheckpointStoreError

SEED = int(os.environ.get("CKPTSTORE_TEST_SEED", random.randrange(10**6)))
DISK_BYTES = 24 << 20


def ran(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def mounted(image: Path, at: Path) -> Iterator[None]:
    at.mkdir(exist_ok=True)
    ran("mount", "-o", "loop", image, at)
    try:
        yield
    finally:
        ran("umount", at)


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder in memory with an ext4 image in it, mounted beside it."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None or not Path("/dev/shm").is_dir():
        pytest.skip("power cuts of a real disk need root, mkfs.ext4 and /dev/shm")
    folder = Path("/dev/shm") / f"ckptstore-power-{os.getpid()}"
    folder.mkdir()
    try:
        image = folder / "disk"
        with open(image, "wb") as file:
            file.truncate(DISK_BYTES)
        ran("mkfs.ext4", "-q", "-F", "-J", "size=2", image)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(mounted(image, folder / "live"))
            except AssertionError as exc:
                pytest.skip(f"no disk can be mounted here: {exc}")
            yield folder
    finally:
        shutil.rmtree(folder)


class Warnings(logging.Handler):
    """Keeps what the store warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[str] = []
        logging.getLogger("ckptstore").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record.getMessage())

    def end(self) -> None:
        logging.getLogger("ckptstore").removeHandler(self)


class Writer:
    """A process that saves on the disk, stopped and let go on."""

    def __init__(self, disk: Path, mutant: str) -> None:
        script = Path(__file__).with_name("saving_on_a_disk.py")
        arguments = [sys.executable, script, disk / "live" / "store", *([mutant] if mutant else [])]
        self._process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._told = self._process.stdout
        self.newest = int(self._told.readline())
        os.set_blocking(self._told.fileno(), False)

    def stop(self) -> None:
        """Return when all of its threads stand still; ``newest`` is then what it has acknowledged last."""
        self._process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "the writer died by itself"
        lines = self._told.read()
        if lines:
            self.newest = int(lines.split()[-1])

    def go_on(self, seconds: float) -> None:
        self._process.send_signal(signal.SIGCONT)
        # How long it runs says where the cut comes, and nothing else.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._told.close()


def take_image(disk: Path) -> Path:
    """Copy the disk's file in a moment when nothing is being written to it."""
    image = disk / "image"
    mounts = Path("/proc/mounts").read_text().splitlines()
    device = next(line.split()[0] for line in mounts if f"{disk}/live" in line)
    statistics = Path(f"/sys/block/{Path(device).name}/stat")

    def writes() -> tuple[str, str]:
        numbers = statistics.read_text().split()
        return numbers[4], numbers[8]  # ended, and under way

    while True:
        before = writes()
        shutil.copyfile(disk / "disk", image)
        if before == writes() and before[1] == "0":
            return image


def problem(disk: Path, acknowledged: int) -> str | None:
    """Return what is wrong with the disk of an image, also where the store could help itself."""
    warnings = Warnings()
    with (
        mounted(take_image(disk), disk / "after"),
        CheckpointStore.open(str(disk / "after" / "store"), config=config(durability="os")) as store,
    ):
        try:
            numbers = []
            for one in store.list("c"):
                loaded = store.load(one)
                assert is_values(loaded), "wrong data"
                numbers.append(loaded["n"])
            assert numbers, "nothing is there"
            assert numbers[0] >= acknowledged, f"acknowledged {acknowledged}, the newest is {numbers[0]}"
            last = list(range(numbers[0], max(-1, numbers[0] - KEPT), -1))
            assert numbers[:KEPT] == last, f"lost of the last: {numbers}"
            assert not warnings.records, f"damaged: {warnings.records}"
        except (AssertionError, CheckpointStoreError) as exc:
            return f"{type(exc).__name__}: {exc}"
        finally:
            warnings.end()
    return None


def first_problem(disk: Path, n_images: int, mutant: str = "") -> str | None:
    """Cut the power so many times, or until something is wrong."""
    print("CKPTSTORE_TEST_SEED =", SEED)
    rng = random.Random(SEED)
    writer = Writer(disk, mutant)
    try:
        for number in range(n_images):
            writer.stop()
            found = problem(disk, writer.newest)
            if found is not None:
                return f"image {number}: {found}"
            writer.go_on(rng.uniform(0.001, 0.03))
        print(f"{n_images} images, {writer.newest} checkpoints")
        return None
    finally:
        writer.end()


@pytest.mark.parametrize(
    "n_images", [70, pytest.param(3000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
)
def test_no_power_cut_of_a_disk_loses_what_was_acknowledged(disk: Path, n_images: int) -> None:
    assert first_problem(disk, n_images) is None


@pytest.mark.parametrize(
    ("mutant", "seen"),
    [("directories", "acknowledged|nothing is there|lost of"), ("chunks", "Chunk|damaged")],
)
def test_the_power_cut_of_a_disk_catches_what_is_not_flushed(disk: Path, mutant: str, seen: str) -> None:
    found = first_problem(disk, 400, mutant)
    print(found)
    assert found is not None
    assert re.search(seen, found)
