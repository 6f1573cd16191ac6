"""
The directive C{commands}: what a disk understands, from the very table that dispatches.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent.parent))

from iscsi_twisted.scsi.cdb import EXEMPT, READS, SHARED, WRITES, Command
from iscsi_twisted.scsi.disk import DiskUnit

CONDITIONS = {
    "thin": "the unit is thin",
    "removable": "the unit is removable",
    "readOnly": "the unit is read-only",
    "atomicLimit": "there is a state directory",
    "nonvolatile": "there is a state directory",
    "forgets": "what is overwritten is not kept",
    "erases": "storage can be given back and then reads as zeros",
}


class Commands(SphinxDirective):
    """C{.. commands::}"""

    def run(self) -> list[nodes.Node]:
        made = nodes.Element()
        self.state.nested_parse(StringList(table(), "iscsi_twisted/scsi"), self.content_offset, made)
        return made.children


def table() -> list[str]:
    """A list table, as reStructuredText."""
    rows = [("Command", "Code", "CDB usage data", "Notes"), *map(row, DiskUnit.table)]
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 32 10 34 24", ""]
    for cells in rows:
        lines += [f"   {'*' if not number else ' '} - {cell}" for number, cell in enumerate(cells)]
    return lines


def row(command: Command) -> tuple[str, str, str, str]:
    """Its name, codes, usage data, and what is special about it."""
    code = f"{command.opcode:02X}h"
    if command.serviceAction is not None:
        code += f"/{command.serviceAction:02X}h"
    return command.name, code, f"``{command.usage.hex(' ').upper()}``", ", ".join(notes(command))


def notes(command: Command) -> list[str]:
    """What is special about a command."""
    found = []
    if command.access & WRITES == WRITES:
        found.append("writes")
    elif command.access & READS == READS:
        found.append("reads")
    if command.access & EXEMPT:
        found.append("answered before a unit attention")
    if command.access & SHARED:
        found.append("not held up by a reservation")
    if command.condition is not None:
        found.append(f"only where {CONDITIONS[command.condition]}")
    return found


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
