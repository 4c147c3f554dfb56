"""Other gateways, as their registries have them, measured as ours is. None is a dependency of anything else."""
