"""CONNECTION: plain HTTP to one Label Studio server, and what can go wrong on the way.

    method, path, content -> [Connection.call] -> JSON, or LabelStudioError

One connection a request: kept alive, each costs 45 ms more, and some break. No redirect is followed, so the
token goes to no other host. Only what changes nothing is tried again; whether the rest is, its caller knows.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import time
import urllib.request
from typing import Any, NoReturn
from urllib.error import URLError
from urllib.parse import urlencode, urlsplit

__all__ = ["Connection", "LabelStudioError", "Token", "token_from_environment"]

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


class Token:
    """A key to a server, which shows itself to nobody: no text, copy or pickle of it holds it.

    Args:
        text: A personal access token, or a legacy token.

    Example:
        >>> Token("0123456789abcdef0123456789abcdef01234567")
        Token(***)
    """

    def __init__(self, text: str) -> None:
        text = text.strip()
        if not re.fullmatch(r"[\x21-\x7e]+", text):  # a stray line end would be shown by http.client
            raise ValueError(
                "The Label Studio token is empty or holds blanks or letters that no token has (it is not "
                "shown here). Copy it again from Account & Settings, for example into LABEL_STUDIO_API_KEY."
            )
        self._text = text

    @property
    def is_personal(self) -> bool:
        """Whether it has to be changed for an access token: personal ones are JSON Web Tokens."""
        return self._text.count(".") == 2

    def reveal(self) -> str:
        """The token itself, for a request."""
        return self._text

    def __repr__(self) -> str:
        return "Token(***)"

    def __copy__(self) -> Token:
        return self

    def __deepcopy__(self, memo: Any) -> Token:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A Label Studio token is not to be written anywhere, so it cannot be pickled. Make the "
            "`LabelStudio` object in the process that uses it."
        )


class Connection:
    """A server, and the right to speak to it.

    Args:
        url: Where it is, with a path if it has one.
        token: A personal access token or a legacy token.
        timeout: Seconds without a sign of life; a whole answer may take ten times as long.
    """

    def __init__(self, url: str, token: Token, *, timeout: float = 60.0) -> None:
        self.url, self.timeout = _checked_url(url), timeout
        self._token, self._access = token, Token("none")
        self._opener = urllib.request.OpenerDirector()  # without what follows redirects or opens files
        proxies: dict[str, str] | None = {} if urlsplit(self.url).hostname in _LOOPBACK else None
        for handler in (
            urllib.request.ProxyHandler(proxies),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
        ):
            self._opener.add_handler(handler)

    def get(self, path: str, **query: Any) -> Any:
        """What is there; tried three times, since it changes nothing."""
        target = f"{path}?{urlencode(query)}" if query else path
        for pause in _PAUSES:
            try:
                return self.call("GET", target)
            except LabelStudioError as error:
                if not (error.unsure or error.status in _BUSY):
                    raise
            time.sleep(pause)
        return self.call("GET", target)

    def call(self, method: str, path: str, content: Any = None, *, kind: str = "application/json") -> Any:
        """One request, and what was answered.

        Args:
            method: Of HTTP.
            path: From the server's address on, with the query.
            content: What is sent: bytes as they are, anything else as JSON.
            kind: Of bytes.

        Raises:
            LabelStudioError: If there was no answer, or a refusal.
        """
        body = None if content is None else content if isinstance(content, bytes) else _encoded(content)
        status, answer = self._ask(method, path, body, kind, self._authorization())
        if status == 401 and self._token.is_personal:  # an access token lives for five minutes
            self._access = Token("none")
            status, answer = self._ask(method, path, body, kind, self._authorization())
        if not 200 <= status < 300:
            self._refused(method, path, status, answer)
        return self._decoded(method, path, status, answer)

    def _authorization(self) -> str:
        if not self._token.is_personal:
            return f"Token {self._token.reveal()}"
        if self._access.reveal() == "none":
            body = _encoded({"refresh": self._token.reveal()})
            status, answer = self._ask("POST", "/api/token/refresh/", body, "application/json", None)
            if status != 200:
                self._refused("POST", "/api/token/refresh/", status, answer)
            given = self._decoded("POST", "/api/token/refresh/", status, answer)
            self._access = Token(str(given.get("access", "") if isinstance(given, dict) else ""))
        return f"Bearer {self._access.reveal()}"

    def _ask(
        self, method: str, path: str, body: bytes | None, kind: str, authorization: str | None
    ) -> tuple[int, bytes]:
        headers = {"Accept": "application/json", "User-Agent": "lightning-al"}
        if body is not None:
            headers["Content-Type"] = kind
        if authorization is not None:
            headers["Authorization"] = authorization
        request = urllib.request.Request(self.url + path, data=body, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=self.timeout) as answer:
                self._follow_nothing(answer)
                return answer.status, self._content(answer)
        except (OSError, http.client.HTTPException) as error:
            raise self._interrupted(method, path, error) from None

    def _content(self, answer: Any) -> bytes:
        parts, size, end = [], 0, time.monotonic() + 10 * self.timeout
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

    def _interrupted(self, method: str, path: str, error: Exception) -> LabelStudioError:
        reason = error.reason if isinstance(error, URLError) else error
        late = isinstance(reason, TimeoutError)
        never_began = isinstance(reason, ConnectionRefusedError | socket.gaierror)
        what = f"no answer for {self.timeout:g} s" if late else f"{type(reason).__name__}: {reason}"
        return LabelStudioError(
            f"{method} {self.url}{_bare(path)}: {self._masked(what)}. Needed is a Label Studio server that "
            "answers there. See whether it runs, and run this again: what is done already is not done twice.",
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
        if not answer:
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
        for token in (self._token, self._access):
            text = text.replace(token.reveal(), "***") if len(token.reveal()) > 5 else text
        return text


def _checked_url(url: str) -> str:
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


def token_from_environment(text: str | None) -> Token:
    """The token given, else that of `LABEL_STUDIO_API_KEY`."""
    return Token(text if text is not None else os.environ.get("LABEL_STUDIO_API_KEY", ""))
