"""Real clients, unmodified, against the product in both modes: what works is the table in `docs/clients.md`."""
