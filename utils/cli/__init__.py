"""What `python3 -m utils VERB` does."""
