"""`stepback import`: a base model becomes a folder to train from and to serve."""
