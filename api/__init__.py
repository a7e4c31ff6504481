"""The HTTP server: text, JSON and models by name. Holds no arrays; engines live elsewhere."""
