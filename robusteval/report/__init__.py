"""What people look at: the progress line, the result table, figures, and tables over many runs."""
