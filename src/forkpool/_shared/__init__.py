"""What runs on both sides: in the host and in its workers."""
