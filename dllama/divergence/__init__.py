"""How far a model's probabilities are from those of another, such as its unquantized self."""
