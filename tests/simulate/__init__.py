"""A whole cluster in one process: time, network, presence and database are in the hand of one seed."""
