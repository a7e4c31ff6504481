"""How long the ranks of a session wait for each other before its weights travel: the root's and the
workers' limits, which depend on each other. Ranks of other releases have limits of their own."""

START_TIMEOUT_S = 60.0  # for a worker to start a process: imports from a slow disk
JOIN_TIMEOUT_S = START_TIMEOUT_S + 15  # of a fast one: Join goes out when the last has started
MESH_TIMEOUT_S = 15.0  # for all ranks to hear each other
JOIN_DEADLINE_S = 120.0  # of a daemon; a session that started at once gives up by itself after 90 s
