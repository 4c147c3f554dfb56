"""The faces of the router: one protocol that callers speak each, and how a request of it is carried to a backend."""
