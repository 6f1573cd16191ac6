"""A userspace iSCSI target on Twisted."""

__version__ = "0.1.0"
