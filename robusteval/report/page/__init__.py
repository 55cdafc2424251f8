"""One HTML file that shows a run, or a folder of runs: self-contained, without a request to anywhere."""
