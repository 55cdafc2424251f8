"""Sinks: where a finished run is sent. A sink replays the files of a run folder and can never cost a result."""
