"""The router: the data plane's HTTP face. Pure ASGI; no framework, no validation library, one parse per body."""
