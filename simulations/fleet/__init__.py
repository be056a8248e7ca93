"""A fleet of simulated wearables on this machine: what `fleet_of_wearables.py` and the tests start and look at."""
