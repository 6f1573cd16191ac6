# -*- test-case-name: tests.config.test_tree -*-
"""A configuration as text."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.model import Target
from iscsi_twisted.config.targets import parse
from iscsi_twisted.config.tree import describe

TEXT = """
extent0 disk\\ 0 0 100MB
extent1 /b 1K size
extent2 /c 0 100MB
extent3 /d\u202e 0 1M
device0 RAID1 extent0 extent2
device1 RAID0 device0 extent1
target0 ro device1 extent3 10.4/16,::1
extent4 /e 0 64K
device2 FAULTS extent4 kind=error on=read,write active=no probability=0.5
device3 READONLY device2
lun1=iqn.2001-04.com.example:x device3 any auth=chap users=b,a initiators=iqn.* readers=iqn.r luns=iqn.*:0 \
    alua=2:standby,3:offline preferred=1,4 tpgs=both
"""

WANTED = """\
target0:ro:10.4/16,::1
	TargetName iqn.base:target0
	LUN 0: serial target0-0
	LUN 0: and more
	device1:RAID0
		device0:RAID1
			extent0:disk 0:0:104857600
			extent2:/c:0:104857600
		extent1:/b:1024:size
	LUN 1: serial target0-1
	LUN 1: and more
	extent3:/d\\u202e:0:1048576
lun1:rw:any
	TargetName iqn.2001-04.com.example:x
	auth chap
	users a,b
	initiators iqn.*
	readers iqn.r
	alua 2:standby,3:offline
	preferred 1,4
	tpgs both
	luns of iqn.*: 0
	LUN 0: serial lun1-0
	LUN 0: and more
	device3:READONLY
		device2:FAULTS kind=error on=read,write probability=0.5 active=no
			extent4:/e:0:65536"""


class DescribeTests(SynchronousTestCase):
    """Tests of L{describe}."""

    def test_tree(self) -> None:
        """Each target with its mode, mask, name and identities; below it its storage, one tab a level."""

        def identityOf(target: Target, lun: int) -> list[str]:
            return [f"serial {target.name}-{lun}", "and more"]

        configuration = parse(TEXT, "F", lambda name: None, directory="/here")
        self.assertEqual("\n".join(describe(configuration, identityOf, "iqn.base")), WANTED)
