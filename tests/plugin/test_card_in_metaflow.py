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
from metaflow.plugins.datastores.local_storage import LocalStorage
from metaflow_extensions.ckptstore.plugins.checkpoint.card import CARD_ID, CARD_TYPE, CardWriter

pytestmark = pytest.mark.metaflow

FLOWS = Path(__file__).with_name("flows")
ROOT = Path(os.environ["METAFLOW_DATASTORE_SYSROOT_LOCAL"]) / ".metaflow"
CARDS = ROOT / "mf.cards"


@pytest.fixture(scope="module")
def ran(run_command):
    """Run the flow where Metaflow's commands find the cards: they search from the current folder."""
    from metaflow import Flow, namespace

    done = run_command(str(FLOWS / "card_flow.py"), "--no-pylint", "run")
    assert done.returncode == 0, done.stdout
    namespace(None)
    return Flow("CardFlow").latest_run


@pytest.fixture(scope="module")
def card_command(ran, run_command):
    """Run ``card ...`` of the flow as a user would."""

    def command(*args):
        done = run_command(str(FLOWS / "card_flow.py"), "card", *args)
        assert done.returncode == 0, done.stdout
        return done.stdout

    return command


def _packed(page):
    """Return what Metaflow's own cards keep in their page."""
    return [base64.b64decode(data).decode() for data in re.findall(r'"(eyJ[A-Za-z0-9+/]+=*)"', page)]


def test_client_finds_the_card_beside_the_users_own(ran):
    from metaflow.cards import get_cards

    task = ran["start"].task
    assert sorted((card.type, card.id) for card in get_cards(task)) == [
        ("blank", "mine"),
        (CARD_TYPE, CARD_ID),
    ]
    (ours,) = get_cards(task, id=CARD_ID)
    (mine,) = get_cards(task, id="mine")
    assert task.pathspec in ours.get()
    assert "OSError: no space" in ours.get()
    assert any("the user's own" in text for text in _packed(mine.get()))


def test_command_line_lists_and_gets_the_card(ran, card_command, tmp_path):
    listed = card_command("list", f"{ran.id}/start", "--as-json", "--file", str(tmp_path / "cards.json"))
    cards = json.loads((tmp_path / "cards.json").read_text())["cards"]
    assert (CARD_TYPE, CARD_ID) in [(card["type"], card["id"]) for card in cards], listed

    card_command("get", f"{ran.id}/start", str(tmp_path / "card.html"), "--id", CARD_ID)
    assert "OSError: no space" in (tmp_path / "card.html").read_text()


def test_card_servers_page_renews_itself_while_the_task_runs(ran, card_server, told_when):
    if reason := browser.missing():
        pytest.skip(f"no browser: {reason}")
    task = ran["end"].task
    writer = CardWriter(LocalStorage(str(ROOT)), task.pathspec, log=pytest.fail)
    now = datetime.now(timezone.utc).isoformat()
    writer.finish(
        lambda: facts(save(name="page-one"), pathspec=task.pathspec, state="running", written_on=now)
    )
    (page,) = CARDS.rglob(f"steps/end/tasks/{task.id}/cards/*.html")
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
