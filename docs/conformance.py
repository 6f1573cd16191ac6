"""
The directive C{conformance}: which sentences of RFC 7143 which test proves, and which no test proves.

The tables are made when the documentation is built, from the tests themselves.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.conformance.register import ELSEWHERE, UNTESTED, Must, proved


class Conformance(SphinxDirective):
    """C{.. conformance:: tested} or C{.. conformance:: untested}."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        if self.arguments[0] == "tested":
            lines = table("Test", sorted((*proved(), *ELSEWHERE), key=order), "``{}``")
        else:
            lines = table("Why not", sorted(UNTESTED, key=order), "{}")
        made = nodes.Element()
        self.state.nested_parse(StringList(lines, "tests/conformance"), self.content_offset, made)
        return made.children


def order(must: Must) -> tuple[list[tuple[int, int]], str]:
    """Sections by their numbers, appendices behind chapters."""
    parts = re.findall(r"[0-9]+|[A-Z]", must.section)
    return [(0, int(part)) if part.isdigit() else (1, ord(part)) for part in parts], must.words


def table(title: str, musts: list[Must], form: str) -> list[str]:
    """A list table, as reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 10 50 40", ""]
    for section, words, proof in (("Section", "Sentence", title), *((m[0], m[1], m[2]) for m in musts)):
        heading = section == "Section"
        lines += [
            f"   * - {section}",
            f"     - {words if heading else escaped(words)}",
            f"     - {proof if heading else form.format(proof.removeprefix('tests.'))}",
        ]
    return lines


def escaped(words: str) -> str:
    """Words that stand for themselves."""
    return re.sub(r"([*`|_\\])", r"\\\1", words)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("conformance", Conformance)
    return {"parallel_read_safe": True}
