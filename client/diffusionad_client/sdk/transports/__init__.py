"""The ways to a server: what the client needs of one, gRPC, and gRPC's errors as ours."""
