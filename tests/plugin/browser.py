"""A headless Chromium that opens pages and answers questions about them.

The Chromium is Qt's, which its wheel brings along. It runs in a process of its
own, this file's, and its requests to anywhere but this machine are refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Seen", "missing", "visit"]

LIMIT_S = 60


class Seen(NamedTuple):
    """What a visit showed: the script's answer, what the page said and what it asked for."""

    answer: Any
    console: list[str]
    requests: list[str]


def visit(
    url: str,
    answer: str = "null",
    *,
    width: int = 1200,
    dark: bool = False,
    until: str = "true",
) -> Seen:
    """Open a page, wait until a JavaScript expression is true, and return another one's value."""
    request = {"url": url, "answer": answer, "width": width, "until": until}
    done = _child(json.dumps(request), dark=dark)
    assert done.returncode == 0, done.stdout + done.stderr
    return Seen(**json.loads(done.stdout))


def missing() -> str:
    """Return why there is no browser here; empty if there is one."""
    done = _child("")
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it does not start"])[-1]


def _child(request: str, *, dark: bool = False) -> subprocess.CompletedProcess[str]:
    settings = {
        "QT_QPA_PLATFORM": "offscreen",
        # It opens the tests' own pages only, and its sandbox does not work for root.
        "QTWEBENGINE_DISABLE_SANDBOX": "1",
        "QTWEBENGINE_CHROMIUM_FLAGS": f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        "QT_LOGGING_RULES": "*=false",
    }
    command = [sys.executable, str(Path(__file__))]
    with subprocess.Popen(
        command,
        env=os.environ | settings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as child:
        try:
            out, err = child.communicate(request, timeout=LIMIT_S + 20)
        finally:
            # Chromium's own processes end a little after it, and with it if it hangs.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def _main() -> None:
    from PySide6.QtCore import Qt, QTimer, QUrl
    from PySide6.QtWebEngineCore import (
        QWebEnginePage,
        QWebEngineProfile,
        QWebEngineUrlRequestInfo,
        QWebEngineUrlRequestInterceptor,
    )
    from PySide6.QtWebEngineWidgets import QWebEngineView
    from PySide6.QtWidgets import QApplication
    from shiboken6 import delete

    line = sys.stdin.read()
    if not line:
        return
    request = json.loads(line)
    seen = Seen(None, [], [])
    answers = []

    class Watch(QWebEngineUrlRequestInterceptor):
        def interceptRequest(self, info: QWebEngineUrlRequestInfo) -> None:
            url = info.requestUrl()
            seen.requests.append(url.toString())
            info.block(not (url.isLocalFile() or url.host() == "127.0.0.1" or url.scheme() == "data"))

    class Page(QWebEnginePage):
        def javaScriptConsoleMessage(self, level: Any, text: str, line: int, source: str) -> None:
            seen.console.append(f"{level.name}: {text}")

    app = QApplication(["browser"])
    profile = QWebEngineProfile()
    watch = Watch()
    profile.setUrlRequestInterceptor(watch)
    page = Page(profile)
    view = QWebEngineView()
    view.setPage(page)
    view.resize(request["width"], 900)

    def look() -> None:
        page.runJavaScript(f"Boolean({request['until']})", lambda is_so: tell() if is_so else again())

    def again() -> None:
        QTimer.singleShot(50, look)

    def tell() -> None:
        page.runJavaScript(
            f"JSON.stringify({request['answer']})", lambda text: (answers.append(text), app.quit())
        )

    QTimer.singleShot(LIMIT_S * 1000, lambda: app.exit(3))
    page.loadFinished.connect(look, Qt.ConnectionType.SingleShotConnection)
    view.show()
    page.load(QUrl(request["url"]))
    status = app.exec()
    delete(view)
    delete(page)
    if status:
        sys.exit(
            f"the page was not as wanted within {LIMIT_S} s; requests {seen.requests}, console {seen.console}"
        )
    print(json.dumps(seen._replace(answer=json.loads(answers[0]))._asdict()))


if __name__ == "__main__":
    _main()
