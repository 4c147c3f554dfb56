"""HTTP faces: the router, the command API and the read API."""
