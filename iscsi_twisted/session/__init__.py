"""iSCSI itself (RFC 7143), without I/O: login, negotiation, the full feature phase."""
