"""The documentation is run: code blocks of the README and of every page, and examples in docstrings."""

import doctest
import importlib
import inspect
import io
import pkgutil
import re
from functools import partial
from pathlib import Path

import lightning as L
import pytest

import lightning_al
import lightning_al.plotting

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(page):
    """Line, code, and what it prints: the text block that follows directly."""
    text = page.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    for number, fence in enumerate(found):
        if fence[1] != "python":
            continue
        after = found[number + 1] if number + 1 < len(found) else None
        directly = after is not None and after[1] == "text" and not text[fence.end() : after.start()].strip()
        yield text.count("\n", 0, fence.start(2)), fence[2], after[2] if directly else None


def run_blocks(page):
    namespace = {"__name__": "__main__"}
    for line, code, expected in blocks(page):
        said = io.StringIO()
        namespace["print"] = partial(print, file=said)  # without the progress bars
        exec(compile("\n" * line + code, str(page), "exec"), namespace)
        if expected is not None:
            same = doctest.OutputChecker().check_output(expected, said.getvalue(), OPTIONS)
            assert same, (
                f"{page.name}, line {line + 1} printed:\n{said.getvalue()}\nbut shown is:\n{expected}"
            )


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(blocks(page))],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
# A plain Trainer warns of these: its logger is CSV, and a second fit's checkpoints meet the first one's.
@pytest.mark.filterwarnings("ignore:Starting from v1.9.0:UserWarning")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")
def test_the_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    L.seed_everything(0, verbose=False)
    run_blocks(page)


def test_a_page_that_shows_other_output_than_its_code_prints_fails(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n")
    with pytest.raises(AssertionError, match="line 2 printed"):
        run_blocks(page)


MODULES = [
    module.name
    for module in pkgutil.walk_packages(lightning_al.__path__, "lightning_al.")
    if module.name != "lightning_al.__main__"
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_print_what_they_show(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = io.StringIO()
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for test in doctest.DocTestFinder().find(module):
        runner.run(test, out=report.write)
    assert runner.failures == 0, report.getvalue()


def public(package):
    return {
        f"{package.__name__}.{name}": getattr(package, name)
        for name in package.__all__
        if inspect.isclass(getattr(package, name)) or inspect.isfunction(getattr(package, name))
    }


PUBLIC = (
    public(lightning_al)
    | public(lightning_al.acquisition)
    | public(lightning_al.functional)
    | public(lightning_al.plotting)
)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example(name):
    thing = PUBLIC[name]
    if not (inspect.isclass(thing) and issubclass(thing, BaseException)):
        assert ">>>" in (thing.__doc__ or ""), f"`{name}` has no example in its docstring"


def test_every_public_name_is_on_a_page_of_the_reference():
    reference = "\n".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    shown = set(re.findall(r"^::: ([\w.]+)", reference, re.MULTILINE))
    assert set(PUBLIC) <= shown, f"missing: {sorted(set(PUBLIC) - shown)}"


def test_every_strategy_is_described():
    page = (ROOT / "docs" / "strategies.md").read_text()
    headings = set(re.findall(r"^### (\w+)", page, re.MULTILINE))
    bases = {name for name in lightning_al.acquisition.__all__ if name.endswith("Acquisition")}
    assert set(lightning_al.acquisition.__all__) - bases - {"Selection"} == headings
