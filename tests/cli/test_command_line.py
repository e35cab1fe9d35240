"""What holds for every command: exit codes, one line for an error, no colour and no bar for a program, no secret."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import seaweed
from cli_rig import CONFIG, Filled, ckptstore, values
from click.testing import CliRunner

import ckptstore as package
from ckptstore import CheckpointStore
from ckptstore.backends.local import LocalBackend
from ckptstore.cli import command
from ckptstore.errors import AccessDeniedError, UnavailableError

COMMANDS = ("ls", "inspect", "diff", "verify", "gc", "rm", "undelete", "pin", "unpin", "du", "copy", "doctor")
WORDS: dict[str, tuple[str, ...]] = {
    "inspect": ("c",),
    "diff": ("c",),
    "rm": ("c@", "--yes"),
    "undelete": ("c@",),
    "pin": ("c@",),
    "unpin": ("c@",),
    "gc": ("--yes",),
}


def program(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ckptstore", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


def test_help_tells_all_commands_and_exit_codes() -> None:
    done = ckptstore("--help")
    assert done.code == 0
    assert set(command.commands) == set(COMMANDS)
    for word in (*COMMANDS, "exp/run1@best", "Exit codes", "0  done", "4  the storage failed"):
        assert word in done.out
    for name in COMMANDS:
        told = ckptstore(name, "--help")
        assert told.code == 0
        assert "--json" in told.out
        assert "FROM TO" in told.out if name == "copy" else "URL" in told.out


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("copy", "doctor")])
def test_each_command_says_in_one_line_what_is_wrong(name: str, filled: Filled, tmp_path: Path) -> None:
    words = WORDS.get(name, ())
    for url, code, kind in (
        (tmp_path / "nothing", 3, "StoreNotFoundError"),
        ("http://169.254.169.254/", 2, "InvalidURLError"),
    ):
        done = ckptstore(name, url, *words)
        assert (done.code, done.out) == (code, "")
        assert done.err.startswith(kind)
        assert done.err.count("\n") == 1
    assert ckptstore(name).code == 2
    assert ckptstore(name, filled.url, "a", "b", "c", "d@", "--bogus").code == 2
    assert ckptstore(name, filled.url, "--option", "bogus").code == 2


@pytest.mark.parametrize("error", [UnavailableError, AccessDeniedError])
def test_a_storage_that_fails_is_exit_code_4(
    filled: Filled, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    def failing(*args: object, **options: object) -> Any:
        raise error("the storage said no")

    monkeypatch.setattr(LocalBackend, "list", failing)
    for name in ("ls", "verify", "du", "gc"):
        done = ckptstore(name, filled.url, *WORDS.get(name, ()))
        assert (done.code, done.out) == (4, "")
        assert done.err == f"{error.__name__}: the storage said no\n"


def test_an_interrupt_is_exit_code_130(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **options: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalBackend, "list", interrupted)
    done = ckptstore("ls", filled.url)
    assert (done.code, done.out, done.err) == (130, "", "interrupted\n")


def test_a_fault_of_ours_is_not_hidden(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **options: object) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(LocalBackend, "list", broken)
    result = CliRunner().invoke(command, ["ls", str(filled.url)])
    assert isinstance(result.exception, ZeroDivisionError)


def test_a_program_gets_no_colour_and_no_bar(filled: Filled) -> None:
    for words in (("ls",), ("ls", "exp/run1"), ("inspect", "exp/run1"), ("verify",), ("du",)):
        done = program(words[0], filled.url, *words[1:])
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout
        assert max(map(len, done.stdout.splitlines())) < 200
        for line in program(words[0], filled.url, *words[1:], "--json").stdout.splitlines():
            assert isinstance(json.loads(line), dict)


def test_names_are_never_cut_for_a_program(tmp_path: Path) -> None:
    name = "x" * 200
    with CheckpointStore.open(str(tmp_path / "store"), config=CONFIG) as store:
        store.save(name, {"n": 1}, label="l" * 100, run="r" * 80)
    assert f"{name}@" in program("ls", tmp_path / "store", name).stdout
    assert "l" * 100 in program("ls", tmp_path / "store", name).stdout


def test_a_person_at_a_terminal_sees_a_bar(filled: Filled) -> None:
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "ckptstore", "verify", str(filled.url), "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
            env={**os.environ, "TERM": "xterm-256color"},
        )
        out, _ = process.communicate(timeout=60)
        bar = os.read(ours, 1000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 0
    assert json.loads(out)["ok"]
    assert "verify" in bar


def test_a_pipe_that_is_closed_early_is_no_traceback(filled: Filled) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ckptstore", "ls", str(filled.url), "--json"],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(write)
    assert "Traceback" not in done.stderr


def test_no_secret_is_printed() -> None:
    secret = "s3cr3t-value"
    for words in (
        ("ls", f"s3://user:{secret}@bucket/x"),
        ("ls", "s3://b/x", "--option", f"secret access key={secret}"),
        ("ls", "s3://b/x", "--option", secret),
        ("ls", "s3://b/x", "--option", f"bogus={secret}"),
        ("doctor", "s3://b/x", "--option", f"access_key_id={secret}"),
        ("copy", f"s3://user:{secret}@bucket/x", "/tmp/none/at/all"),
    ):
        done = ckptstore(*words)
        assert done.code == 2
        assert secret not in done.out + done.err


def test_manifests_without_the_signature_are_refused(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"k1 {'ab' * 32}\n")
    keys.chmod(0o600)
    url = tmp_path / "store"
    with CheckpointStore.open(
        str(url), config=package.StoreConfig(durability="os", signing_key=str(keys))
    ) as store:
        store.save("c", {"n": 1})
    assert ckptstore("inspect", url, "c", "--signing-key", keys, "--json").one["signed_by"] == "k1"
    assert ckptstore("verify", url, "--signing-key", keys).code == 0
    with CheckpointStore.open(str(url), config=CONFIG) as store:
        store.save("c", {"n": 2})
    done = ckptstore("inspect", url, "c", "--signing-key", keys)
    assert (done.code, done.err.partition(":")[0]) == (1, "SignatureError")
    done = ckptstore("verify", url, "--signing-key", keys, "--json")
    assert [problem["kind"] for problem in done.one["problems"]] == ["unreadable"]
    assert "ab" * 32 not in done.out + done.err
    assert ckptstore("ls", url, "--signing-key", tmp_path / "none").code == 2


def test_a_store_for_one_process_is_opened_only_if_told(tmp_path: Path) -> None:
    url = tmp_path / "scratch"
    config = package.StoreConfig(durability="os", exclusive=True, grace_s=60.0)
    with CheckpointStore.open(str(url), config=config) as store:
        store.save("c", {"n": 1})
    done = ckptstore("ls", url)
    assert done.code == 2
    assert "exclusive" in done.err
    assert ckptstore("ls", url, "--exclusive").code == 0
    assert ckptstore("gc", url, "--exclusive", "--yes").code == 0
    done = ckptstore("copy", url, tmp_path / "copy", "--from-exclusive")
    assert (done.code, done.out.count(" copied")) == (0, 2)


def test_all_of_it_on_s3() -> None:
    server = seaweed.server()
    url, options = server.new_url(), server.options
    with CheckpointStore.open(url, config=package.StoreConfig(chunk_bytes=8192), **options) as store:
        store.save("exp/run1", values(1), label="best")
        store.save("exp/run1", values(2))
    given = [word for name, value in options.items() for word in ("--option", f"{name}={value}")]
    done = program("ls", url, "exp/run1", "--json", *given)
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["label"] for line in done.stdout.splitlines()] == [None, "best"]
    assert seaweed.SECRET_KEY not in done.stdout + done.stderr
    assert ckptstore("verify", url, *given).code == 0
    assert ckptstore("du", url, *given, "--json").lines[-1]["n_checkpoints"] == 2
    assert ckptstore("inspect", url, "exp/run1@best", *given).code == 0
    assert ckptstore("diff", url, "exp/run1", *given).code == 0
    assert ckptstore("pin", url, "exp/run1@best", *given).code == 0
    assert ckptstore("rm", url, "exp/run1@", "--yes", *given).code == 0
    assert ckptstore("undelete", url, "exp/run1@", *given).code == 0
    assert ckptstore("gc", url, "--yes", *given).code == 0
    other = server.new_url()
    both = [
        word
        for name, value in options.items()
        for side in ("from", "to")
        for word in (f"--{side}-option", f"{name}={value}")
    ]
    done_copy = ckptstore("copy", url, other, "--json", *both)
    assert [line["state"] for line in done_copy.lines] == ["copied", "copied"]
    assert ckptstore("verify", other, *given).code == 0
    wrong = [word if "secret" not in word else "secret_access_key=wrong-one" for word in given]
    refused = ckptstore("ls", url, *wrong)
    assert refused.code == 4
    assert "wrong-one" not in refused.err
