"""Block devices: extents, memory, and devices made of devices."""
