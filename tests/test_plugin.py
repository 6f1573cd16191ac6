# -*- test-case-name: tests.test_plugin -*-
"""The plugin that twistd finds."""

from __future__ import annotations

import sys

from twisted.application.service import IServiceMaker
from twisted.internet.utils import getProcessOutput
from twisted.plugin import IPlugin, getPlugins
from twisted.trial.unittest import TestCase

from iscsi_twisted import tap

LOADED = """
import sys
before = set(sys.modules)
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
known = set(sys.modules)
import twisted.plugins.iscsi_twisted_dropin as dropin
print(sorted(set(sys.modules) - known))
print([dropin.iscsi.tapname, dropin.iscsi.description])
print('iscsi_twisted' in sys.modules, 'twisted.internet.reactor' in sys.modules)
"""


class PluginTests(TestCase):
    """Tests of the dropin."""

    def test_found(self) -> None:
        """twistd finds one service maker of the name C{iscsi}, and with it the options and the service."""
        (maker,) = [each for each in getPlugins(IServiceMaker) if each.tapname == "iscsi"]
        self.assertTrue(IPlugin.providedBy(maker))
        self.assertIs(maker.options, tap.Options)
        self.assertIs(maker.makeService, tap.makeService)
        self.assertTrue(maker.description)

    async def test_light(self) -> None:
        """Listing it imports nothing but itself: neither this package nor a reactor."""
        output = await getProcessOutput(sys.executable, ["-c", LOADED], env=None, path=None, errortoo=True)
        modules, facts, heavy = output.decode().splitlines()
        self.assertEqual(modules, "['twisted.plugins', 'twisted.plugins.iscsi_twisted_dropin']")
        self.assertIn("'iscsi'", facts)
        self.assertEqual(heavy, "False False")
