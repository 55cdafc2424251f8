"""Metrics: pure functions of the evidence. They know no model and no file format but the table of samples."""
