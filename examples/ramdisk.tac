# Run it with: twistd -ny examples/ramdisk.tac
# and try:     iscsi-ls -s iscsi://127.0.0.1/
#
# A disk of 64 MiB in memory, on port 3260 of loopback; PORT=13260 in the environment chooses another one.
# What you see: the log of whoever logs in and out.  Ctrl-C stops it, and the disk's contents are gone.

import os

from twisted.application.service import Application
from twisted.internet import reactor

from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target import TargetService

application = Application("ramdisk")

service = TargetService(reactor, [f"tcp:{os.environ.get('PORT', 3260)}:interface=127.0.0.1"])
service.addTarget("iqn.2001-04.com.example:ramdisk", [MemoryDevice(64 << 20)])
service.setServiceParent(application)
