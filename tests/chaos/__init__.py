"""A soak of random work and random harm, and the proof afterwards that each task is accounted for.

`python -m tests.chaos --minutes 30 --seed 7`. Every task leaves marks outside of the pool; what its future said has to agree.
Begin with `accountant.py`: it says what is promised. `deeds.py` is what tasks do, `harm.py` what is done to the pool.
Tests: tests/process/test_chaos.py (a minute of it), tests/unit/test_chaos_accountant.py (it does find what is wrong)
"""
