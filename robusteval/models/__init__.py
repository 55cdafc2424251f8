"""Where classifiers come from: one file a source, each a frozen dataclass of options with ``missing`` and ``load``."""
