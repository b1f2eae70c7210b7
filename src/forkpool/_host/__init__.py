"""What runs in the user's process, behind the executor."""
