# -*- test-case-name: tests.cli.test_tool,tests.cli.test_loading -*-
"""C{iscsi-twisted}: its command line is read before anything else is loaded."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from iscsi_twisted.cli.loading import lightly
from iscsi_twisted.cli.options import parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = parser().parse_args(arguments)
    # There is nothing to log out from yet, and nothing to tell.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with lightly("iscsis:" in str(vars(options))):
        from iscsi_twisted.cli.commands import run
    run(options)
