"""The card is one like any other to Metaflow's client, commands and card server."""

import base64
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import browser
import pytest
from card_samples import facts, save
from metaflow.plugins.cards.exception import CardNotPresentException
from metaflow.plugins.datastores.local_storage import LocalStorage
from metaflow_extensions.ckptstore.plugins.checkpoint.card import CARD_ID, CARD_TYPE, CardWriter

pytestmark = pytest.mark.metaflow

LOOK = """(() => {
  const text = element => element.innerText.trim().replace(/\\s+/g, " ");
  const rows = name => [...document.querySelectorAll(`table.${name} tbody tr`)].map(
    row => [...row.cells].map(text));
  const count = name => document.querySelectorAll(`svg.timeline rect.${name}`).length;
  return {
    rows: rows("checkpoints"), ancestors: rows("ancestors"),
    charts: [...document.querySelectorAll("svg.line")].map(svg => [
      svg.closest("figure").querySelector("h3").firstChild.data.trim(),
      svg.querySelector("path.dot").getAttribute("d").split("M").length - 1,
    ]),
    state: text(document.querySelector("header .state")), line: text(document.querySelector("header .line")),
    bars: {blocked: count("blocked"), background: count("background"), bad: count("bad")},
    advice: text(document.querySelector(".advice")),
  };
})()"""

FLOWS = Path(__file__).with_name("flows")
ROOT = Path(os.environ["METAFLOW_DATASTORE_SYSROOT_LOCAL"]) / ".metaflow"
CARDS = ROOT / "mf.cards"


@pytest.fixture(scope="module")
def ran(run_command):
    """Run the flow where Metaflow's commands find the cards: they search from the current folder."""
    from metaflow import Flow, namespace

    # Metaflow starts the other ranks with the `python` of the path.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = run_command(str(FLOWS / "card_flow.py"), "--no-pylint", "run", PATH=path)
    assert done.returncode == 0, done.stdout
    assert "the card of this task" not in done.stdout
    namespace(None)
    return Flow("CardFlow").latest_run


@pytest.fixture(scope="module")
def page(ran):
    """Return the card of the task that died twice, as the client gives it."""
    from metaflow.cards import get_cards

    (ours,) = get_cards(ran["start"].task, id=CARD_ID)
    return ours.get()


@pytest.fixture(scope="module")
def card_command(ran, run_command):
    """Run ``card ...`` of the flow as a user would."""

    def command(*args, **env):
        done = run_command(str(FLOWS / "card_flow.py"), "card", *args, **env)
        assert done.returncode == 0, done.stdout
        return done.stdout

    return command


def _pages(task):
    """Return the cards of a task as the client gives them, if it has any."""
    from metaflow.cards import get_cards

    try:
        return [card.get() for card in get_cards(task)]
    except CardNotPresentException:
        return []


def _packed(page):
    """Return what Metaflow's own cards keep in their page."""
    return [base64.b64decode(data).decode() for data in re.findall(r'"(eyJ[A-Za-z0-9+/]+=*)"', page)]


def test_client_finds_one_card_of_all_attempts_beside_the_users_own(ran):
    from metaflow.cards import get_cards

    task = ran["start"].task
    assert sorted((card.type, card.id) for card in get_cards(task)) == [
        ("blank", "mine"),
        (CARD_TYPE, CARD_ID),
    ]
    (ours,) = get_cards(task, id=CARD_ID)
    (mine,) = get_cards(task, id="mine")
    assert task.pathspec in ours.get()
    assert any("the user's own" in text for text in _packed(mine.get()))


def test_page_tells_what_every_attempt_of_a_task_that_died_twice_has_saved(ran, page, tmp_path):
    if reason := browser.missing():
        pytest.skip(f"no browser: {reason}")
    path = tmp_path / "card.html"
    path.write_text(page, encoding="ascii")
    seen = browser.visit(path.as_uri(), LOOK)
    assert (seen.console, seen.requests) == ([], [path.as_uri()])
    shown = seen.answer

    assert [row[0].split() for row in shown["rows"]] == [
        ["broken", "attempt", "2", "failed"],
        ["side", "attempt", "2", "not", "latest", "deleted"],
        ["epoch", "attempt", "2"],
        ["epoch", "attempt", "2"],
        ["epoch", "attempt", "1"],
        ["epoch", "attempt", "1"],
        ["epoch", "attempt", "0"],
        ["epoch", "attempt", "0"],
    ]
    assert shown["rows"][0][6].startswith("UnserializableError: self.lock cannot be saved")
    assert [row[6].split() for row in shown["rows"][2:]] == [
        ["epoch", str(n), "loss", f"{1 / n:.4g}"] for n in range(6, 0, -1)
    ]
    dash = "\N{EN DASH}"
    times = [(row[4] != dash, row[5] != dash) for row in shown["rows"]]
    assert times == [(True, False), *[(True, True)] * 3, *[(False, False)] * 4]

    task = ran["start"].task.pathspec
    assert [[row[n] for n in (0, 1, 2, 4, 5)] for row in shown["ancestors"]] == [
        ["0", "0", task, "epoch", "epoch 2 loss 0.5"],
        ["1", "1", task, "epoch", "epoch 4 loss 0.25"],
    ]
    assert [(name, n) for name, n in shown["charts"]] == [("epoch", 6), ("loss", 6)]
    assert shown["state"] == "finished"
    assert "attempt 2" in shown["line"]
    assert shown["bars"] == {"blocked": 3, "background": 1, "bad": 1}
    assert "for 2 failures" in shown["advice"]


def test_command_line_lists_gets_and_views_the_card(ran, card_command, page, tmp_path):
    listed = card_command("list", f"{ran.id}/start", "--as-json", "--file", str(tmp_path / "cards.json"))
    cards = json.loads((tmp_path / "cards.json").read_text())["cards"]
    assert (CARD_TYPE, CARD_ID) in [(card["type"], card["id"]) for card in cards], listed

    card_command("get", f"{ran.id}/start", str(tmp_path / "card.html"), "--id", CARD_ID)
    assert (tmp_path / "card.html").read_text() == page

    # It opens a copy in the browser of the user.
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    script.chmod(0o755)
    card_command("view", f"{ran.id}/start", "--id", CARD_ID, BROWSER=f"{script} %s")
    opened = (tmp_path / "opened").read_text().strip().removeprefix("file://")
    assert Path(opened).read_text() == page


def test_control_task_has_the_card_of_a_parallel_step(ran):
    pages = {task.pathspec: _pages(task) for task in ran["rank"]}

    control = next(pathspec for pathspec in pages if "_node_" not in pathspec)
    assert len(pages) == 2
    assert [len(found) for found in pages.values()] == [int(pathspec == control) for pathspec in pages]
    assert "rank 0" in pages[control][0]
    assert "rank 1" not in pages[control][0]


def test_step_that_saves_nothing_says_so_and_one_that_wants_no_card_has_none(ran):
    (ours,) = _pages(ran["end"].task)
    assert "Nothing was saved yet." in ours
    assert "no lineage found" in ours
    assert _pages(ran["join"].task) == []


def test_run_whose_cards_cannot_be_written_succeeds_and_says_so(run_command, tmp_path):
    (tmp_path / ".metaflow").mkdir()
    (tmp_path / ".metaflow" / "mf.cards").write_text("a file where the folder of cards would be")

    flow = (str(FLOWS / "with_checkpoint.py"), "--no-pylint", "run", "--with", "checkpoint")
    done = run_command(*flow, METAFLOW_DATASTORE_SYSROOT_LOCAL=str(tmp_path))

    assert done.returncode == 0, done.stdout
    assert done.stdout.count("the card of this task could not be written: NotADirectoryError") == 2


def test_card_servers_page_renews_itself_while_the_task_runs(ran, card_server, told_when):
    if reason := browser.missing():
        pytest.skip(f"no browser: {reason}")
    task = ran["join"].task
    writer = CardWriter(LocalStorage(str(ROOT)), task.pathspec, log=pytest.fail)
    now = datetime.now(timezone.utc).isoformat()
    writer.finish(
        lambda: facts(save(name="page-one"), pathspec=task.pathspec, state="running", written_on=now)
    )
    (page,) = CARDS.glob(f"CardFlow/runs/{ran.id}/steps/join/tasks/{task.id}/cards/*.html")
    hash_ = page.stem.rpartition("-")[2]
    is_shown = told_when(
        lambda: writer.finish(lambda: facts(save(name="page-two"), pathspec=task.pathspec, written_on=now))
    )
    # The viewer shows one of the run's cards: ours is chosen, and that it is seen is told.
    until = f"""(() => {{
      const cards = document.getElementById("selector"), frame = document.getElementById("card-frame");
      const ours = [...cards.options].find(option => option.value.endsWith("{hash_}"));
      if (ours && !window.chosen) {{
        window.chosen = cards.value = ours.value;
        cards.dispatchEvent(new Event("change"));
      }}
      const text = frame.contentDocument?.querySelector("table.checkpoints")?.innerText || "";
      if (text.includes("page-one") && !window.told) window.told = fetch("{is_shown}", {{mode: "no-cors"}});
      return text.includes("page-two");
    }})()"""

    state = "document.getElementById('card-frame').contentDocument.documentElement.dataset.ckptstoreCard"
    seen = browser.visit(card_server(ran.id), state, until=until)

    assert seen.answer == "finished"
    assert is_shown in seen.requests


@pytest.fixture
def told_when():
    """Return an address at which the first visit calls a function."""
    with contextlib.ExitStack() as stack:

        def serve(call):
            class Visited(BaseHTTPRequestHandler):
                def do_GET(self):
                    call()
                    self.send_response(204)
                    self.end_headers()

                def log_message(self, *args):
                    pass

            server = stack.enter_context(HTTPServer(("127.0.0.1", 0), Visited))
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}/"

        yield serve


@pytest.fixture
def card_server():
    """Run Metaflow's card server for a run and return its address."""
    with contextlib.ExitStack() as stack:

        def serve(run_id):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            command = [str(FLOWS / "card_flow.py"), "card", "server", "--run-id", run_id, "--port", str(port)]
            server = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *command],
                    cwd=ROOT.parent,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            stack.callback(server.kill)
            url = f"http://127.0.0.1:{port}/"
            # It says that it starts before it listens.
            while "Starting card server" not in (line := server.stdout.readline()):
                assert line, "the card server did not start"
            while server.poll() is None:
                with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10):
                    return url
            return pytest.fail("the card server ended")

        yield serve
