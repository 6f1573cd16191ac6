"""How Sphinx builds the documentation: C{sphinx-build -W -b html docs docs/_build}."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "iscsi_twisted"
author = "the iscsi_twisted authors"
copyright = author
release = version = installed("iscsi-twisted")

extensions = ["commands", "conformance"]
exclude_patterns = ["_build", "newsfragments"]
nitpicky = True

html_theme = "furo"
html_title = f"{project} {release}"
