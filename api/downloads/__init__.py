"""Routes that download models, tell how downloads stand, and remove models."""
