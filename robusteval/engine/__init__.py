"""The engine: it owns the model, the passes, the slots, the verification and the early stop."""
