"""SCSI (T10: SAM, SPC, SBC): logical units and their commands.  Knows no iSCSI and no Twisted."""
