"""Twisted glue: a configuration becomes devices, units, targets, portals and a service."""
