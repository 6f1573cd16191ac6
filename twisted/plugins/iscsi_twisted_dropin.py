"""The C{twistd iscsi} plugin; names its module as a string, so that listing plugins imports nothing."""

from twisted.application.service import ServiceMaker

iscsi = ServiceMaker("iSCSI target", "iscsi_twisted.tap", "Serve disks over iSCSI (RFC 7143).", "iscsi")
