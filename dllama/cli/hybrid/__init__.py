"""A server and a chat with it in one terminal: its processes, and their end."""
