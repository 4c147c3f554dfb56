"""What Tollhouse plugs into."""
