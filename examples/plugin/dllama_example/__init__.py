"""What a package adds to dllama: a command, a family of models, and a dialect of tool calls."""
