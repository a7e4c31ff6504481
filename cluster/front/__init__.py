"""The door of a port that strangers can reach: bytes are measured before ZeroMQ takes them in."""
