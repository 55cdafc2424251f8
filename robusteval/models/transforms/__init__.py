"""What can be done to a classifier before it is evaluated: padding, temperature, smoothing, and the like."""
