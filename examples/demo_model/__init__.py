"""The small chat model that comes with dllama: its data, its training and its evaluation."""
