"""Plugs for other libraries: optional imports, public names of forkpool only."""
