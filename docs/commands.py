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

from iscsi_twisted.scsi.cdb import EXEMPT, READS, SHARED, STEERS, WRITES, Command
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.optical import OpticalUnit

CONDITIONS = {
    "thin": "the unit is thin",
    "removable": "the unit is removable",
    "readOnly": "the unit is read-only",
    "atomicLimit": "there is a state directory, and the disk is not encrypted",
    "nonvolatile": "there is a state directory",
    "asymmetric": "access states are told (see :doc:`paths`)",
    "explicit": "initiators may change access states",
    "forgets": "what is overwritten is not kept",
    "sanitizes": "what is overwritten is not kept, or is encrypted",
    "rekeys": "the disk is encrypted",
    "erases": "storage can be given back and then reads as zeros",
}


class Commands(SphinxDirective):
    """C{.. commands::}, or C{.. commands:: optical}."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        made = nodes.Element()
        self.state.nested_parse(
            StringList(table(bool(self.arguments)), "iscsi_twisted/scsi"), self.content_offset, made
        )
        return made.children


def table(optical: bool) -> list[str]:
    """
    A list table, as reStructuredText.

    @param optical: of what optical units alone understand, not of what disks do.
    """
    commands = OpticalUnit.table if optical else DiskUnit.table
    known = set(DiskUnit.table) if optical else set()
    rows = [
        ("Command", "Code", "CDB usage data", "Notes"),
        *(row(command) for command in commands if command not in known),
    ]
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
    if command.access & STEERS:
        found.append("not for who may only read")
    if command.condition is not None:
        found.append(f"only where {CONDITIONS[command.condition]}")
    return found


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
