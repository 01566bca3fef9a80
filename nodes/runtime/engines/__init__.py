"""Engines: programs that others keep, which this node starts, watches and feeds."""
