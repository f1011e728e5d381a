"""What happens to a unit on the host; nothing here becomes gates."""
