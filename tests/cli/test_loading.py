"""What a command loads, and what it does not."""

from __future__ import annotations

import gc
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.cli.loading import lightly

PROGRAM = """
import atexit, sys
from iscsi_twisted.cli.tool import main
atexit.register(lambda: print(*sys.modules))
main()
"""


class LoadingTests(SynchronousTestCase):
    """L{lightly}, and the commands that use it."""

    def loaded(self, *arguments: str) -> set[str]:
        """The modules that a command has loaded at its end."""
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False
        )
        return set(done.stdout.split())

    def test_plain(self) -> None:
        """A command that speaks no TLS does not load it, and loads nothing of other commands."""
        # Nobody listens there.
        loaded = self.loaded("capacity", "iscsi://127.0.0.1:1/iqn.2001-04.com.example:t/0")
        self.assertIn("iscsi_twisted.transport", loaded)
        without = {
            "OpenSSL.SSL",
            "twisted.internet.ssl",
            "ssl",
            "email",
            "asyncio.base_events",
            "crc32c",
            "iscsi_twisted.cli.bench",
            "iscsi_twisted.storage.mirror",
        }
        self.assertEqual(loaded & without, set())

    def test_secure(self) -> None:
        """One that does loads it."""
        loaded = self.loaded("capacity", "iscsis://127.0.0.1:1/iqn.2001-04.com.example:t/0")
        self.assertIn("OpenSSL.SSL", loaded)

    def test_usage(self) -> None:
        """What only tells how it is used loads hardly anything."""
        loaded = self.loaded("--version")
        self.assertNotIn("twisted.internet.defer", loaded)

    def test_later(self) -> None:
        """TLS can be loaded afterwards, and garbage is looked for as before."""
        program = (
            "import gc, sys\n"
            "from iscsi_twisted.cli.loading import lightly\n"
            "with lightly(False):\n"
            "    from twisted.internet import tcp\n"
            "assert 'OpenSSL' not in sys.modules and gc.isenabled()\n"
            "from iscsi_twisted.initiator import secure\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True)

    def test_unused(self) -> None:
        """What was put off is all there when it is wanted."""
        program = (
            "import sys\n"
            "from iscsi_twisted.cli.loading import lightly\n"
            "with lightly(False):\n"
            "    from twisted.internet import defer\n"
            "    from http import cookiejar\n"
            "assert 'asyncio.base_events' not in sys.modules and 'email' not in sys.modules\n"
            "import asyncio, asyncio.subprocess\n"
            "assert cookiejar.CookieJar and asyncio.Future is defer.Future\n"
            "async def three(): return 3\n"
            "assert asyncio.run(three()) == 3 and 'run' in asyncio.__all__\n"
            "assert asyncio.subprocess.Process and not hasattr(asyncio, 'missing')\n"
            "loop = asyncio.new_event_loop()\n"
            "assert defer.succeed(4).asFuture(loop).result() == 4\n"
            "loop.close()\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True)

    def test_state(self) -> None:
        """Whoever does not look for garbage does not afterwards, and what was loaded stays."""
        import OpenSSL

        gc.disable()
        self.addCleanup(gc.enable)
        with lightly(False):
            self.assertIs(sys.modules["OpenSSL"], OpenSSL)
        self.assertFalse(gc.isenabled())
        self.addCleanup(gc.unfreeze)
