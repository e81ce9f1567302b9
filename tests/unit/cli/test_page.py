"""What the documentation shows of the command line can be typed."""

import re
import shlex
from pathlib import Path

import pytest

from lightning_al.cli.commands import COMMANDS
from lightning_al.cli.parsing import parsed

ROOT = Path(__file__).parents[3]
#: Their arguments are those of the user's classes.
TRAINING = ("lightning-al fit-rounds", "lightning-al compare")
LINES = [
    line
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for block in re.findall(r"^```bash\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("lightning-al ") and not line.startswith(TRAINING)
]


@pytest.mark.parametrize("line", LINES)
def test_a_command_that_is_shown_is_understood(line):
    name, _ = parsed(shlex.split(line)[1:], COMMANDS)
    assert name == line.split()[1]


def test_the_page_shows_every_command():
    page = (ROOT / "docs" / "command_line.md").read_text("utf-8")
    assert all(f"lightning-al {name} " in page for name in COMMANDS)
    assert {line.split()[1] for line in LINES} >= set(COMMANDS) - {"fit-rounds", "compare"}
