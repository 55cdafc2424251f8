"""Attacks of other libraries, run as they are on whole batches and verified like our own."""
