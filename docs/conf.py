"""How Sphinx builds the documentation: C{sphinx-build -W -b html docs docs/_build}."""

from importlib.metadata import version as installed

project = "iscsi_twisted"
author = "the iscsi_twisted authors"
copyright = author
release = version = installed("iscsi-twisted")

extensions: list[str] = []
exclude_patterns = ["_build", "newsfragments"]
nitpicky = True

html_theme = "furo"
html_title = f"{project} {release}"
