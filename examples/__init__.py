"""Examples that use dllama; not part of the installed package."""
