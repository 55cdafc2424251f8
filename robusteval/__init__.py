"""robusteval: how robust is this image classifier, and how sure are we?"""

import os

# Without it, MKL adds up long dot products in parts whose number follows from that of the threads, and so do the last
# bits of logits. It is read at MKL's first call; another setting of the user's stands.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

__version__ = "0.1.0"
