"""TOKEN: the key to a server, which no text, copy or file shows."""

from __future__ import annotations

import os
import re
from typing import Any, NoReturn

__all__ = ["Token", "token_from_environment"]


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


def token_from_environment(text: str | None) -> Token:
    """The token given, else that of `LABEL_STUDIO_API_KEY`.

    Raises:
        ValueError: If there is none, or it cannot be one.
    """
    if text is None and not os.environ.get("LABEL_STUDIO_API_KEY", "").strip():
        raise ValueError(
            "There is no Label Studio token: LABEL_STUDIO_API_KEY is not set. Copy one from Account & "
            "Settings into it, or into a file, for `--token-file`."
        )
    return Token(os.environ["LABEL_STUDIO_API_KEY"] if text is None else text)
