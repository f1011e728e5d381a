"""Generator of microscaling (MX) arithmetic hardware."""

__version__ = "0.1.0"
