"""``--datastore``: the store of the datastore that Metaflow is configured for, and Metaflow only then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import seaweed
from cli_rig import CONFIG, Filled, values

from ckptstore import CheckpointStore


def program(cwd: Path, *words: str, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command where no other configuration of Metaflow is found."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("METAFLOW_", "AWS_"))}
    run = ["-c", code] if code else ["-m", "ckptstore"]
    return subprocess.run(
        [sys.executable, *run, *words],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env={**given, "METAFLOW_HOME": str(cwd / "none"), "HOME": str(cwd), "USER": "ada", **environment},
    )


def test_the_local_datastore_is_found(tmp_path: Path) -> None:
    root = tmp_path / ".metaflow"
    root.mkdir()
    with CheckpointStore.open(str(root / "mf.ckptstore"), config=CONFIG) as store:
        saved = store.save("flow/step", values(1))
    (tmp_path / "deeper").mkdir()
    for cwd in (tmp_path, tmp_path / "deeper"):
        done = program(cwd, "ls", "--datastore", "flow/step", "--json", METAFLOW_DEFAULT_DATASTORE="local")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["name"] == saved.ref.name
    done = program(tmp_path, "copy", "--from-datastore", str(tmp_path / "copy"), "--json")
    assert json.loads(done.stdout)["state"] == "copied"


def test_the_s3_datastore_is_found(tmp_path: Path) -> None:
    server = seaweed.server()
    root = f"s3://{seaweed.BUCKET}/{server.new_prefix()}"
    with CheckpointStore.open(f"{root}/mf.ckptstore", config=CONFIG, **server.options) as store:
        store.save("flow/step", values(1))
    done = program(
        tmp_path,
        "ls",
        "--datastore",
        "--json",
        METAFLOW_DEFAULT_DATASTORE="s3",
        METAFLOW_DATASTORE_SYSROOT_S3=root,
        METAFLOW_S3_ENDPOINT_URL=server.endpoint_url,
        AWS_ACCESS_KEY_ID=seaweed.ACCESS_KEY,
        AWS_SECRET_ACCESS_KEY=seaweed.SECRET_KEY,
        AWS_DEFAULT_REGION="us-east-1",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["collection"] == "flow/step"


def test_no_datastore_and_no_store_in_it_are_told(tmp_path: Path) -> None:
    done = program(tmp_path, "ls", "--datastore", METAFLOW_DEFAULT_DATASTORE="local")
    assert done.returncode == 2
    assert "datastore" in done.stderr
    (tmp_path / ".metaflow").mkdir()
    done = program(tmp_path, "ls", "--datastore", METAFLOW_DEFAULT_DATASTORE="local")
    assert done.returncode == 3
    assert "mf.ckptstore" in done.stderr
    done = program(tmp_path, "ls", "--datastore", "--option", "a=b")
    assert done.returncode == 2
    for one in (done,):
        assert "Traceback" not in one.stderr


def test_a_missing_metaflow_is_told_with_the_line_that_installs_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['metaflow'] = None; import ckptstore.__main__ as m; m.main()"
    done = program(tmp_path, "ls", "--datastore", code=code)
    assert done.returncode == 2
    assert "pip install metaflow" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_else_imports_metaflow(filled: Filled) -> None:
    code = (
        "import sys, ckptstore.__main__ as m\n"
        "try:\n    m.main()\n"
        "finally:\n    assert not [name for name in sys.modules if name.startswith('metaflow')]\n"
    )
    done = program(filled.url.parent, "ls", str(filled.url), code=code)
    assert done.returncode == 0, done.stderr
