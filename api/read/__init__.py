"""The read API: budgets, usage, requests, audit, events, and the operators' endpoints of the projections."""
