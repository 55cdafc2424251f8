"""robusteval's launchers for Hydra, found by it as every package in the namespace ``hydra_plugins`` is.

Hydra imports these modules at each start, so they import neither torch nor submitit.
"""
