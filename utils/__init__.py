"""What an earlier notebook built, ready for the next; `python3 -m utils` is the command line."""
