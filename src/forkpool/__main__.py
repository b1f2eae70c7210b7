"""`python -m forkpool`: the command line, see `cli`.

Runs in: host, before anything of the user's. `forkpool run` empties this module and lets the program be `__main__`.
Tests: tests/process/test_run_program.py
"""

from forkpool.cli import main

if __name__ == "__main__":
    main()
