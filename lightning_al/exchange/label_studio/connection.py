"""CONNECTION: plain HTTP to one Label Studio server, and what can go wrong on the way.

    method, path, content -> [Connection.call] -> JSON, or LabelStudioError

One connection a request: kept alive, each costs 45 ms more, and some break. No redirect is followed, so the
token goes to no other host. Only what changes nothing is tried again; whether the rest is, its caller knows.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
import urllib.request
from typing import Any, NoReturn
from urllib.error import URLError
from urllib.parse import urlencode, urlsplit

from lightning_al.exchange.label_studio.token import Token

__all__ = ["Connection", "LabelStudioError"]

_PAUSES = (0.5, 2.0)  # seconds before another try
_LARGEST = 1 << 30
_CHUNK = 1 << 20
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_BUSY = (429, 502, 503, 504)


class LabelStudioError(RuntimeError):
    """The server could not be asked, or refused.

    Args:
        message: What was tried, what is needed, what to do.
        status: Of the answer, if there was one.
        unsure: Whether what was asked may have been done all the same.
        late: Whether it may be done yet: the server did not answer in time.
    """

    def __init__(
        self, message: str, *, status: int | None = None, unsure: bool = False, late: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.unsure, self.late = status, unsure, late


class Connection:
    """A server, and the right to speak to it.

    Args:
        url: Where it is, with a path if it has one.
        token: A personal access token or a legacy token.
        timeout: Seconds without a sign of life; a whole answer may take ten times as long.
    """

    def __init__(self, url: str, token: Token, *, timeout: float = 60.0) -> None:
        self.url, self.timeout = _checked_url(url), timeout
        self._token = token
        self._access: Token | None = None
        self._opener = urllib.request.OpenerDirector()  # without what follows redirects or opens files
        proxies: dict[str, str] | None = {} if urlsplit(self.url).hostname in _LOOPBACK else None
        for handler in (
            urllib.request.ProxyHandler(proxies),
            urllib.request.HTTPHandler(debuglevel=0),  # whatever is set elsewhere: it prints headers
            urllib.request.HTTPSHandler(debuglevel=0),
        ):
            self._opener.add_handler(handler)

    def get(self, path: str, **query: Any) -> Any:
        """What is there; tried three times, since it changes nothing.

        Args:
            path: From the server's address on.
            query: What follows it.

        Raises:
            LabelStudioError: If there was no answer, or a refusal.
        """
        target = f"{path}?{urlencode(query)}" if query else path
        for pause in _PAUSES:
            try:
                return self.call("GET", target)
            except LabelStudioError as error:
                if not (error.unsure or error.status in _BUSY):
                    raise
            time.sleep(pause)
        return self.call("GET", target)

    def get_with(self, name: str, path: str, **query: Any) -> dict[str, Any]:
        """See `get`; what is there is known by having `name`."""
        answer = self.get(path, **query)
        if not isinstance(answer, dict) or name not in answer:
            raise LabelStudioError(
                f"GET {self.url}{path} answers with {self._masked(repr(answer))[:200]}, without {name!r}; "
                "needed is the address of a Label Studio server. Check `url`."
            )
        return answer

    def call(
        self,
        method: str,
        path: str,
        content: Any = None,
        *,
        kind: str = "application/json",
        patience: float | None = None,
    ) -> Any:
        """One request, and what was answered.

        Args:
            method: Of HTTP.
            path: From the server's address on, with the query.
            content: What is sent: bytes as they are, anything else as JSON.
            kind: Of bytes.
            patience: Seconds without a sign of life, where they are to be more than `timeout`.

        Raises:
            LabelStudioError: If there was no answer, or a refusal.
        """
        body = None if content is None else content if isinstance(content, bytes) else _encoded(content)
        wait = max(self.timeout, patience or 0)
        status, answer = self._ask(method, path, body, kind, self._authorization(), wait)
        if status == 401 and self._token.is_personal:  # an access token lives for five minutes
            self._access = None
            status, answer = self._ask(method, path, body, kind, self._authorization(), wait)
        if not 200 <= status < 300:
            self._refused(method, path, status, answer)
        return self._decoded(method, path, status, answer)

    def _authorization(self) -> Token:
        if not self._token.is_personal:
            return self._token
        if self._access is None:
            path, kind = "/api/token/refresh/", "application/json"
            body = Token(json.dumps({"refresh": self._token.reveal()}, separators=(",", ":")))
            status, answer = self._ask("POST", path, body, kind, None, self.timeout)
            if status != 200:
                self._refused("POST", path, status, answer)
            given = self._decoded("POST", path, status, answer)
            self._access = Token(str(given.get("access", "") if isinstance(given, dict) else ""))
        return self._access

    def _ask(
        self, method: str, path: str, body: bytes | Token | None, kind: str, token: Token | None, wait: float
    ) -> tuple[int, bytes]:
        """Status and content; no frame that an error comes through holds a token as text."""
        request = urllib.request.Request(
            self.url + path,
            data=body.reveal().encode() if isinstance(body, Token) else body,
            headers={"Accept": "application/json", "User-Agent": "lightning-al"},
            method=method,
        )
        if body is not None:
            request.add_header("Content-Type", kind)
        if token is not None:
            scheme = "Bearer" if self._token.is_personal else "Token"
            request.add_header("Authorization", f"{scheme} {token.reveal()}")
        try:
            with self._opener.open(request, timeout=wait) as answer:
                self._follow_nothing(answer)
                return answer.status, self._content(answer, wait)
        except (OSError, http.client.HTTPException) as error:
            failed = self._interrupted(method, path, error, wait)
        raise failed  # out here, it does not carry the frames of the request

    def _content(self, answer: Any, wait: float) -> bytes:
        parts, size, end = [], 0, time.monotonic() + 10 * wait
        while part := answer.read1(_CHUNK):
            parts.append(part)
            size += len(part)
            if size > _LARGEST:
                raise LabelStudioError(
                    f"{self.url} answers with more than {_LARGEST >> 20} MiB; needed is less. Pictures as "
                    "data in the tasks do that: give them as files or addresses."
                )
            if time.monotonic() > end:
                raise TimeoutError
        if answer.length:  # announced and not come
            raise http.client.IncompleteRead(b"", answer.length)
        return b"".join(parts)

    def _follow_nothing(self, answer: Any) -> None:
        if 300 <= answer.status < 400:
            to = urlsplit(answer.headers.get("Location") or "")
            raise LabelStudioError(
                f"{self.url} sends us on to {to.scheme}://{to.hostname or '?'}{to.path}; the token is not "
                "taken there. Give the address of the server itself as `url` (perhaps https:// instead of http://).",
                status=answer.status,
            )

    def _interrupted(self, method: str, path: str, error: Exception, wait: float) -> LabelStudioError:
        reason = error.reason if isinstance(error, URLError) else error
        late = isinstance(reason, TimeoutError)
        never_began = isinstance(reason, ConnectionRefusedError | socket.gaierror)
        what = f"no answer for {wait:g} s" if late else f"{type(reason).__name__}: {reason}"
        then = "after some minutes, since it may be done yet" if late and method != "GET" else "then"
        return LabelStudioError(
            f"{method} {self.url}{_bare(path)}: {self._masked(what)}. Needed is a Label Studio server that "
            f"answers there. See whether it runs, and run this again {then}: what is done is not done twice.",
            unsure=not never_began,
            late=late,
        )

    def _refused(self, method: str, path: str, status: int, answer: bytes) -> NoReturn:
        advice = "Mend what it names, and run this again."
        if status in (401, 403):
            advice = (
                "Needed is a token of an account that may change the project: a personal access token, or a "
                "legacy token where the organization allows these (Account & Settings)."
            )
        elif status == 404:
            advice = "Check the address of the server, and the number of the project."
        elif status >= 500:
            advice = "The server's own log says more; run this again when it is well."
        raise LabelStudioError(
            f"{method} {self.url}{_bare(path)} was refused with status {status}: "
            f"{self._masked(_detail(answer))}. {advice}",
            status=status,
            unsure=status >= 500,
            late=status in (502, 504),  # what stands before the server gave up waiting
        )

    def _decoded(self, method: str, path: str, status: int, answer: bytes) -> Any:
        if not answer and method != "GET":
            return None
        try:
            return json.loads(answer)
        except ValueError:
            raise LabelStudioError(
                f"{method} {self.url}{_bare(path)} answers with status {status} and no JSON: "
                f"{self._masked(_detail(answer))}. Needed is the address of a Label Studio server; a page to "
                "log in on may stand before it.",
                status=status,
                unsure=True,
            ) from None

    def _masked(self, text: str) -> str:
        for token in filter(None, (self._token, self._access)):
            text = text.replace(token.reveal(), "***")
        return text


def _checked_url(url: str) -> str:
    if not url.strip():
        raise ValueError(
            "There is no address of a server; needed is that of Label Studio. Set LABEL_STUDIO_URL, or give "
            "`--url`, in Python `LabelStudio(url)`: for example `http://localhost:8080`."
        )
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError(
            f"{url.rpartition('@')[2]!r} is no address of a server; needed is http:// or https://, a host "
            "and no password. Give for example `http://localhost:8080`."
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _encoded(content: Any) -> bytes:
    return json.dumps(content, allow_nan=False).encode()


def _bare(path: str) -> str:
    return path.partition("?")[0]


def _detail(answer: bytes) -> str:
    """What an error says; of a page, its title."""
    text = answer[:200_000].decode("utf-8", "replace")
    try:
        said = json.loads(text)
    except ValueError:
        title = re.search(r"<title>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
        return f"a page titled {title[1].strip()[:100]!r}" if title else repr(text[:100])
    if not isinstance(said, dict):
        return repr(said)[:500]
    more = said.get("validation_errors")
    return str(said.get("detail", said))[:500] + (f" {json.dumps(more)[:1500]}" if more else "")
