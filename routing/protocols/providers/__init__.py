"""Cloud providers: how each is asked on behalf of a client that speaks another API, and how its answer is told."""
