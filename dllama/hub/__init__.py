"""Models by name: where they are on the hub and on this machine, and how they come here."""
