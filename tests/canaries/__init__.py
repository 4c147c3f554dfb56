"""Secrets and texts that can be told from everything else are put in wherever they belong, and looked for everywhere else."""
