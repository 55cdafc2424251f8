"""Bringing together what was computed apart: shards of one plan, or attacks on one model."""
