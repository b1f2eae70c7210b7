"""A Python that was built for a kernel without pidfds. Import it in the host, and have the fork server preload it.

Runs in: hosts that tests start, and fork servers.
"""

import os

vars(os).pop("pidfd_open", None)
