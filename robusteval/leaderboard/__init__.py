"""Complete runs and published entries in one ranking: with intervals, ties, and what makes a number not comparable."""
