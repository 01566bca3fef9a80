"""What the node says over HTTP: inference passed on to its engines, and what it has to tell of itself."""
