"""How much memory a call needs: the resident high-water mark, set back before it (Linux)."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

__all__ = ["peak_extra_megabytes"]


def peak_extra_megabytes(function: Callable[..., Any], *arguments: Any) -> float:
    """Resident memory at its highest during the call, above what was resident before."""
    function(*arguments)  # what is loaded or set up once does not count
    try:
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that the process still holds would hide what is taken
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        pytest.skip("the high-water mark of memory can be set back on Linux only")
    before = _status("VmRSS")
    function(*arguments)
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])
