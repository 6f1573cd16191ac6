# -*- test-case-name: tests.cli.test_tool,tests.cli.test_loading -*-
"""C{iscsi-twisted}: its command line is read before all that a command needs is loaded."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    # There is nothing to log out from yet, and nothing to tell.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from iscsi_twisted.cli.concealing import conceal
    from iscsi_twisted.cli.loading import lightly
    from iscsi_twisted.cli.options import parser

    conceal()
    options = parser().parse_args(arguments)
    with lightly("iscsis:" in str(vars(options))):
        from iscsi_twisted.cli.commands import run
    run(options)
