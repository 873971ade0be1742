"""What the documentation names is there."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

import metalgrad
from metalgrad import cards
from metalgrad.cli import app

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
VERBS = {c.name or c.callback.__name__ for c in app.registered_commands}


def resolve(dotted):
    """Find what a dotted name below metalgrad stands for."""
    found = metalgrad
    for count, part in enumerate(dotted.split(".")[1:], start=2):
        if not hasattr(found, part):  # a module that is not imported yet
            import_module(".".join(dotted.split(".")[:count]))
        found = getattr(found, part)
    return found


def blocks(page):
    """Return the Python blocks of a page, as trees."""
    text = page.read_text(encoding="utf-8")
    return [ast.parse(b) for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]


def names(tree):
    """List the names of metalgrad that a block uses, from the package on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            whole = ast.unparse(node)
            if re.fullmatch(r"mg(\.\w+)+", whole):
                yield whole.replace("mg.", "metalgrad.", 1)
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("metalgrad"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(tree):
    """List the calls of a block to metalgrad: name, arguments, and their keywords."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            whole = ast.unparse(node.func)
            if re.fullmatch(r"mg(\.\w+)+", whole):
                words = {word.arg: None for word in node.keywords}
                yield whole.replace("mg.", "metalgrad.", 1), node.args, words


def test_a_name_that_is_not_there_is_found_out():
    assert list(names(ast.parse("mg.fit(x)"))) == ["metalgrad.fit"]
    for missing in ("metalgrad.fitt", "metalgrad.plot.gradients"):
        with pytest.raises((ImportError, AttributeError)):
            resolve(missing)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_calls_have_the_arguments_that_functions_take(page):
    pytest.importorskip("matplotlib")
    for tree in blocks(page):
        for name, arguments, words in calls(tree):
            inspect.signature(resolve(name)).bind(*arguments, **words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_names_in_code_and_text_exist(page):
    pytest.importorskip("matplotlib")
    text = page.read_text(encoding="utf-8")
    found = {name for tree in blocks(page) for name in names(tree)}
    found |= set(re.findall(r"`(metalgrad(?:\.\w+)+)`", text))
    found |= {
        f"metalgrad.{name}"
        for name in re.findall(r"automodule:: metalgrad\.(\w+)", text)
    }
    for name in sorted(found):
        resolve(name)


def test_the_command_line_has_the_verbs_of_the_quickstart():
    text = (DOCS / "quickstart.md").read_text(encoding="utf-8")
    used = set(re.findall(r"^    metalgrad (\w+)", text, re.MULTILINE))
    assert used <= VERBS
    assert {"fit", "check", "compare", "simulate"} <= used


def test_the_quickstart_lists_the_models():
    text = (DOCS / "quickstart.md").read_text(encoding="utf-8")
    table = text.partition("## Which model?")[2]
    listed = re.findall(r"`([\w-]+)`(?=[^\n]*\|)", table)
    assert sorted(listed) == sorted(cards.names("models"))
