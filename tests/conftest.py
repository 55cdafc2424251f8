"""What every test has in common."""

import os

# The suite runs in several processes at once: one thread each, or they wait for each other. Bits do not depend on it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
