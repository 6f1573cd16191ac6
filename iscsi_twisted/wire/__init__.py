"""Bytes to values and back: PDU layouts, digests, framing, text keys.  Knows no session."""
