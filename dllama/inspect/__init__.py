"""What a model file holds, as plain data and as a table for the terminal."""
