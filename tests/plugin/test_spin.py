"""A step that is tried out with `spin` checkpoints where spin keeps its artifacts, and reads those of the run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.metaflow

FLOW = Path(__file__).with_name("flows") / "spin.py"


class Spun(NamedTuple):
    log: str
    told: dict[str, Any]


class Spins(NamedTuple):
    """What came of a run and of the spins of its steps, one after another."""

    first: Spun
    again: Spun
    not_persisted: Spun
    join: Spun
    run: Any
    root: Path
    changed: set[Path]


def files(root: Path) -> dict[Path, tuple[int, int]]:
    found = ((path, path.stat()) for path in root.rglob("*") if path.is_file())
    return {path: (status.st_size, status.st_mtime_ns) for path, status in found}


@pytest.fixture(scope="module")
def spins(run_flow, run_command, tmp_path_factory):
    ran = run_flow("spin")
    folder = tmp_path_factory.mktemp("spin")
    of_the_run = Path(os.environ["METAFLOW_DATASTORE_SYSROOT_LOCAL"], ".metaflow", "mf.ckptstore")
    before = files(of_the_run)
    train = next(task.pathspec for task in ran.run["train"] if task.index == 1)

    def spin(who: str, *arguments: str) -> Spun:
        told = folder / f"{who}.jsonl"
        ended = run_command(
            str(FLOW),
            "--no-pylint",
            "spin",
            *arguments,
            WHO=who,
            TOLD=str(told),
            OF_THE_RUN=train,
            TMPDIR=str(folder),
            METAFLOW_DATASTORE_SYSROOT_SPIN=str(folder / "root"),
        )
        assert ended.returncode == 0, ended.stdout
        facts: dict[str, Any] = {}
        for line in told.read_text().splitlines():
            facts |= json.loads(line)
        return Spun(ended.stdout, facts)

    (folder / "root").mkdir()
    spun = [
        spin("the first", train, "--persist"),
        spin("the second", train, "--persist"),
        spin("not persisted", train),
        spin("the join", "join", "--persist"),
    ]
    changed = {path for path, status in files(of_the_run).items() if before.get(path) != status}
    assert set(before) <= set(files(of_the_run))
    assert not list(folder.glob("ckptstore-spin-*")), "a folder of a spin that persists nothing is left"
    return Spins(*spun, run=ran.run, root=folder / "root", changed=changed)


def test_a_spun_step_saves_and_loads(spins):
    assert spins.first.told["restored"] == ["the first", "of the start"]
    assert spins.first.told["own"] == 1
    assert "Ignoring" not in spins.first.log


def test_checkpoints_are_in_spins_own_datastore(spins):
    assert spins.first.told["url"].startswith(f"{spins.root}/.metaflow_spin/mf.ckptstore#SpinFlow/train/")


def test_the_runs_own_checkpoints_are_never_touched(spins):
    assert spins.changed == set()


def test_a_spin_finds_what_earlier_spins_saved_and_nothing_of_the_run(spins):
    assert spins.first.told["found"] is None
    assert spins.again.told["found"] == "the first"
    assert spins.join.told["fresh"] is False


def test_a_spin_continues_the_line_of_its_foreach_branch(spins):
    assert spins.again.told["line"] == "SpinFlow/train/user:ada/1"


def test_the_runs_checkpoints_are_listed_by_its_task(spins):
    assert spins.first.told["of_the_run"] == ["the run"]


def test_a_reference_that_an_artifact_of_the_run_holds_is_loaded_and_inspected(spins):
    assert spins.join.told["joined 0"] == spins.join.told["joined 1"] == "the run"
    assert "fields" in spins.join.told["inspected"]
    assert spins.join.told["saved"] is None


def test_a_spin_that_persists_nothing_keeps_no_checkpoint_and_says_so(spins):
    assert spins.not_persisted.told["restored"][0] == "not persisted"
    assert spins.not_persisted.told["found"] is None
    assert "nothing is persisted by this spin" in spins.not_persisted.log
    assert "nothing is persisted" not in spins.first.log
    url = spins.not_persisted.told["url"]
    assert not url.startswith(str(spins.root))
    assert not Path(url.partition("#")[0]).exists()


def test_cards_are_where_spin_persists_and_there_is_none_where_it_does_not(spins):
    pages = [
        path.read_text() for path in spins.root.rglob("mf.cards/SpinFlow/**/checkpoint-checkpoint-*.html")
    ]
    said = sorted(
        next((who for who in ("the first", "the second", "not persisted") if who in page), "the join")
        for page in pages
    )
    assert said == ["the first", "the join", "the second"]


def test_decorators_that_the_user_allows_stay_allowed(run_command):
    script = "import metaflow.metaflow_config as config; print(config.SPIN_ALLOWED_DECORATORS)"
    ended = run_command("-c", script, METAFLOW_SPIN_ALLOWED_DECORATORS='["retry"]')
    assert ended.stdout.splitlines()[-1] == "['retry', 'checkpoint']"
