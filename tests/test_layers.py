"""The house keeps its order: layers, sizes, names."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "metalgrad"
FILES = sorted(PACKAGE.rglob("*.py"))
BENCHMARKS = sorted(PACKAGE.with_name("benchmarks").glob("*.py"))

# From the ground up: a file imports strictly lower layers, never its own.
LAYERS = {
    "cards": {"cards", "files", "ledger"},
    "scaling": {"scaling", "threads"},
    "algebra": {"krylov", "normal", "projection", "resonance", "small", "symmetric"},
    "physics": {
        "bins",
        "recipes",
        "lines",
        "calibrations",
        "dust",
        "continuum",
        "geometry",
        "lsf",
        "psf",
        "likelihood",
    },
    "stars": {"stars"},
    "headers": {"headers", "columns", "positions"},
    "layouts": {"apertures", "layouts"},
    "data": {
        "targets",
        "cubes",
        "spaxels",
        "linemaps",
        "windows",
        "detection",
        "residuals",
        "patches",
        "blur",
        "choice",
        "waves",
    },
    "complexes": {"complexes", "sums"},
    "line fits": {"clipping", "linefit"},
    "scene": {"scene"},
    "tuning": {"tuning", "noise"},
    "compression": {"compression"},
    "priors": {"priors", "roles", "supports"},
    "textures": {"textures", "profiles"},
    "fields": {"fields", "hierarchy", "observation", "painted"},
    "straight": {"bends", "straight"},
    "information": {"information"},
    "steady": {"steady"},
    "model": {"model", "starts", "collapse", "foretell", "densities"},
    "settled": {"settled", "modes"},
    "whitening": {"whitening"},
    "measures": {"measures", "criteria", "solutions"},
    "convergence": {"convergence", "bridge"},
    "curvature": {"curvature", "record", "checks"},
    "hops": {"hops"},
    "pilot": {"pilot"},
    "logs": {"logs", "fingerprint"},
    "checkpoint": {"checkpoint"},
    "thinning": {"thinning"},
    "stopping": {"stopping"},
    "chains": {"chains", "mixing"},
    "branches": {"branches"},
    "padding": {"padding"},
    "running": {"inference"},
    "replicas": {"replicas", "coverage"},
    "trials": {"trials"},
    "products": {
        "archive",
        "associations",
        "flagging",
        "literature",
        "maps",
        "spectra",
        "groups",
        "verdict",
    },
    "panels": {"panels"},
    "backdrop": {"backdrop"},
    "synthesis": {"synthesis"},
    "pipelines": {"pipelines"},
    "edges": {
        "classical",
        "annular_plot",
        "budget",
        "assumptions",
        "comparison",
        "context",
        "coverage_plot",
        "criticism",
        "criticism_plot",
        "matching",
        "simulate",
        "sizes",
        "summary",
        "sed",
        "sedplot",
        "starformation",
        "reduction",
        "survey",
        "citation",
    },
    "redrawn": {"redrawn"},
    "refitting": {"refitting"},
    "options": {"options"},
    "annuli": {"annular", "skymaps"},
    "sheets": {"sheets"},
    "pictures": {"plot"},
    "ranks": {"ranks"},
    "cases": {"bench_cases", "bench_measures", "bench_problem"},
    "rivals": {"bench_rivals"},
    "bench": {"bench", "bench_worker"},
    "verbs": {
        "cli_bench",
        "cli_classical",
        "cli_fit",
        "cli_reduce",
        "cli_sbc",
        "cli_sed",
    },
    "command": {"cli"},
}
ORDER = list(LAYERS)

# The layers in which a library may appear.
HOMES = {
    "astropy": {
        "headers",
        "layouts",
        "data",
        "line fits",
        "replicas",
        "products",
        "edges",
        "options",
        "annuli",
        "sheets",
        "ranks",
        "verbs",
        "command",
    },
    "regions": {"layouts", "edges", "command"},
    "numpyro": {
        "priors",
        "textures",
        "fields",
        "model",
        "chains",
        "running",
        "replicas",
        "edges",
        "cases",
        "rivals",
        "command",
    },
    "arviz": {"measures", "curvature", "running", "replicas", "edges", "command"},
    "matplotlib": {"panels", "edges", "options", "sheets", "pictures", "command"},
    "corner": {"edges", "pictures"},
    "bagpipes": {"synthesis"},
    "astroquery": {"products"},
    "jwst": {"pipelines"},
    "dask": {"edges"},
    "distributed": {"edges"},
    "typer": {"options", "verbs", "command"},
}

LONGEST = 300  # lines; a longer file holds two ideas

EMPTY_NAMES = {"utils", "helpers", "core", "base", "config", "types", "constants"}


def layer(name):
    """Return the layer of a module of metalgrad."""
    found = [label for label, names in LAYERS.items() if name in names]
    assert found, f"{name} has no layer; give it one in tests/test_layers.py"
    return found[0]


def height(name):
    """Return how many layers lie below a module."""
    return ORDER.index(layer(name))


def imported(source, package="metalgrad"):
    """Return the modules of metalgrad, and the foreign packages, in a source."""
    ours, foreign = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package if node.level else ""
            stem = ".".join(filter(None, [start, node.module]))
            whole = stem == package
            names = [f"{stem}.{a.name}" for a in node.names] if whole else [stem]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == package:
                ours.add(rest.partition(".")[0] or package)
            else:
                foreign.add(first)
    return ours, foreign


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from metalgrad import cards, lines", ({"cards", "lines"}, set())),
        ("from metalgrad.lines import fluxes", ({"lines"}, set())),
        ("import metalgrad.dust", ({"dust"}, set())),
        ("import metalgrad", ({"metalgrad"}, set())),
        ("from . import cards", ({"cards"}, set())),
        ("from .cards import read", ({"cards"}, set())),
        ("def f():\n    import jax.numpy as jnp", (set(), {"jax"})),
    ],
)
def test_every_way_to_import_is_seen(source, expected):
    assert imported(source) == expected


def inner(files):
    return [path for path in files if path.stem != "__init__"]


@pytest.mark.parametrize("path", inner(FILES), ids=lambda path: path.stem)
def test_imports_point_downwards(path):
    ours, _ = imported(path.read_text(encoding="utf-8"))
    assert "metalgrad" not in ours, f"{path.name} imports the package as a whole"
    above = {name for name in ours if height(name) >= height(path.stem)}
    assert not above, f"{path.name} imports {above}, not below it"


@pytest.mark.parametrize("path", FILES + BENCHMARKS, ids=lambda path: path.stem)
def test_what_is_asked_of_a_module_is_there(path):
    """No linter sees that a name has moved to another module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {
        alias.asname or alias.name: importlib.import_module(f"metalgrad.{alias.name}")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "metalgrad"
        for alias in node.names
        if (PACKAGE / f"{alias.name}.py").exists()
    }
    lacking = {
        f"{node.value.id}.{node.attr}, line {node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id in modules and not hasattr(modules[node.value.id], node.attr)
    }
    assert not lacking, f"{path.name} asks for {lacking}"


@pytest.mark.parametrize("path", inner(FILES), ids=lambda path: path.stem)
def test_libraries_stay_in_their_layers(path):
    _, foreign = imported(path.read_text(encoding="utf-8"))
    here = layer(path.stem)
    strangers = {name for name in foreign if here not in HOMES.get(name, {here})}
    if here == "cards":
        strangers |= foreign - sys.stdlib_module_names
    assert not strangers, f"{path.name} is in layer {here!r}: no {strangers} there"


@pytest.mark.parametrize("name", sorted(LAYERS["command"]))
def test_a_command_draws_nothing_itself(name):
    """It says where Matplotlib shall draw, and leaves the drawing to plot."""
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    local = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if "matplotlib" in (alias.name, getattr(node, "module", None))
        or alias.name.startswith("matplotlib.")
        or (getattr(node, "module", None) or "").startswith("matplotlib.")
    }
    uses = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id in local]
    calls = [
        node.func.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "use"
    ]
    strangers = [use.lineno for use in uses if use not in calls]
    assert not strangers, f"{name}.py uses matplotlib in the lines {strangers}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_file_is_long(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{path.name} has {lines} lines; make it two files"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_name_is_empty(path):
    assert path.stem.strip("_") not in EMPTY_NAMES, f"{path.name} says nothing"


@pytest.mark.parametrize("name", ["models", "data"])
def test_the_shipped_folders_keep_their_names(name):
    # The wheel lays models/ and data/ down inside the package.
    assert not (PACKAGE / f"{name}.py").exists()
    assert not (PACKAGE / name).exists()


@pytest.mark.parametrize("folder", ["models", "data"])
def test_cards_are_not_python(folder):
    assert not list((PACKAGE.parent / folder).rglob("*.py"))
