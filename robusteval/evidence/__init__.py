"""Evidence: small, atomic, checksummed files from which everything else can be derived again."""
