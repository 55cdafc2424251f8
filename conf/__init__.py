"""Configuration files that Hydra composes. Import as ``robusteval.conf``."""
