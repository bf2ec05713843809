"""The SDK: the client, what it knows of a server's releases, and how it reaches a server."""
