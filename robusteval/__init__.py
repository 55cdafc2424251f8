"""robusteval: how robust is this image classifier, and how sure are we?"""

__version__ = "0.1.0"
