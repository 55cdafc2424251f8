"""Attacks: one file each. Import them as ``robusteval.attacks``."""
