"""Benches: stimulus, stream drivers and monitors, protocol rules."""
