"""How Sphinx makes the site: ``make docs``, with warnings as errors."""

from importlib.metadata import version as installed

import metalgrad

project = "metalgrad"
author = "The metalgrad developers"
copyright = "The metalgrad developers"
release = version = installed("metalgrad")

extensions = [
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "metalgrad"
exclude_patterns = ["_build"]

plot_formats = [("png", 130)]
plot_html_show_formats = plot_html_show_source_link = False

default_role = "py:obj"  # `metalgrad.fit` in a docstring is a link
napoleon_google_docstring = False
napoleon_use_ivar = True  # fields of a dataclass are told once
napoleon_attr_annotations = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes and units stand in the docstrings
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True


def setup(app):
    """Tell each name once, and take the star of a shape for what it is."""
    app.connect("autodoc-skip-member", skip_what_is_told)
    app.connect("autodoc-process-docstring", escape_stars, priority=400)


def skip_what_is_told(app, _what, name, member, _skip, _options):
    """Leave out of a module's page what the page of the package tells."""
    is_elsewhere = app.env.current_document.docname != "api/metalgrad"
    is_public = name in metalgrad.__all__ and getattr(metalgrad, name) is member
    return True if is_elsewhere and is_public else None


def escape_stars(_app, _what, _name, _object, _options, lines):
    """Escape ``(*shape, line)`` before a docstring becomes reStructuredText."""
    lines[:] = [line.replace("(*", r"(\*") for line in lines]
