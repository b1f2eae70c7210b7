"""Try the rows of docs/how-to/why-did-my-worker-die.md."""

import symptoms_of_deaths  # noqa: F401  # registers its rows
import symptoms_without_death  # noqa: F401
from claims import try_all

if __name__ == "__main__":
    try_all()
