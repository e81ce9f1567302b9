"""A real Label Studio server on loopback, in an environment and a data folder of its own.

It is started with all that would reach out of the machine switched off. The first start migrates an
empty database (half a minute); later ones begin from a copy of it (three seconds).
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

from ports import free_port

TOKEN = "0123456789abcdef0123456789abcdef01234567"
EMAIL = "al@localhost.test"
SECOND_EMAIL = "second@localhost.test"
ROOT = Path(__file__).parents[2]
VENV = Path(os.environ.get("LABEL_STUDIO_VENV") or ".venv-label-studio")
EXECUTABLE = (ROOT / VENV / "bin" / "label-studio").absolute()

QUIET = {
    "LATEST_VERSION_CHECK": "false",
    "COLLECT_ANALYTICS": "false",
    "SENTRY_DSN": "",  # empty: unset means an address of theirs
    "FRONTEND_SENTRY_DSN": "",
}


class Server:
    """A server of its own; `start` begins from the database of `template`, where there is one."""

    def __init__(self, folder, template=None, legacy=True):
        self.folder, self.template, self.legacy = Path(folder), template, legacy
        self.data, self.port, self.process = self.folder / "data", None, None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def environment(self):
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        # A stray USERNAME or PORT of the caller would count.
        plain = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return plain | QUIET | {
            "HOME": str(home),
            "LABEL_STUDIO_USERNAME": EMAIL,
            "LABEL_STUDIO_PASSWORD": "pw-for-tests",
            "LABEL_STUDIO_USER_TOKEN": TOKEN,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": str(self.legacy).lower(),
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        }  # fmt: skip

    def start(self):
        """Start it on a free port, or again on the one it had, and wait until it answers."""
        if self.template is not None and not self.data.exists():
            shutil.copytree(self.template, self.data)
        self.port = self.port or free_port()
        arguments = ["start", "--no-browser", "--data-dir", str(self.data), "--internal-host", "127.0.0.1"]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.txt").open("a") as log:
            self.process = subprocess.Popen(
                [str(EXECUTABLE), *arguments, "--port", str(self.port)],
                env=self.environment(), cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            self._wait()
        except BaseException:
            self.stop(signal.SIGKILL)
            raise
        return self

    def _wait(self, seconds=300):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                    if json.load(answer) == {"status": "UP"}:
                        return
            except (OSError, ValueError):
                time.sleep(0.2)
        log = (self.folder / "log.txt").read_text()[-3000:]
        raise RuntimeError(f"Label Studio does not answer at {self.url}; the end of its log:\n{log}")

    def stop(self, how=signal.SIGTERM):
        """End it and what it started."""
        if self.process is None:
            return
        for sent in (how, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sent)
                self.process.wait(20)
                break
            except ProcessLookupError:
                self.process.wait(20)
                break
            except subprocess.TimeoutExpired:
                continue
        self.process = None

    def call(self, method, path, body=None, **options):
        """See `call`."""
        return call(self.url, method, path, body, **options)

    def second_token(self):
        """Of another annotator, who signs up by the link that the first one sends."""
        link = self.call("GET", "/api/invite")[1]["token"]
        session = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        page = f"{self.url}/user/signup/?token={link}"
        form = session.open(page, timeout=60).read().decode()
        hidden = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)[1]
        filled = {"csrfmiddlewaretoken": hidden, "email": SECOND_EMAIL, "password": "pw-for-tests"}
        request = urllib.request.Request(page, urlencode(filled).encode(), {"Referer": page})
        session.open(request, timeout=60).read()
        with session.open(f"{self.url}/api/current-user/token", timeout=60) as answer:
            return json.load(answer)["token"]

    def personal_token(self):
        """A personal access token; the server shows it once."""
        return self.call("POST", "/api/token/")[1]["token"]


def call(url, method, path, body=None, *, token=TOKEN, headers=None, data=None):
    """Status and content of an answer, as plain as it comes: what annotators do, not the package."""
    headers = dict(headers or {})
    if token:
        headers.setdefault("Authorization", f"Token {token}")
    if body is not None:
        data = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(url + path, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            status, content = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            status, content = error.code, error.read()
    try:
        return status, json.loads(content) if content else None
    except ValueError:
        return status, content


def make_template(folder):
    """A data folder with a migrated, empty database."""
    server = Server(folder).start()
    server.stop()
    return server.data
