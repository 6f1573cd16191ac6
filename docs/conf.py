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

man_pages = [
    ("tool", "iscsi-twisted", "use iSCSI targets and their disks", [], 1),
    ("harness", "iscsi-harness", "have an iSCSI target do everything, and say how it did", [], 1),
    ("options", "twistd-iscsi", "serve files and disks as iSCSI targets", [], 1),
    ("targets", "iscsi-targets", "what twistd iscsi serves", [], 5),
]
