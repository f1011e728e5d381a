"""Blocks that hit each boundary of a unit, one module a unit."""
