"""Tool calls: what a request offers, how each family of models writes a call, and reading it."""
