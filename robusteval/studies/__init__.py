"""What the runs of an experiment say together: a table printed and written beside them."""
