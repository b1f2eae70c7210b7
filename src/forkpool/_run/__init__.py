"""`forkpool run`: an unmodified program with the pool swapped in."""
