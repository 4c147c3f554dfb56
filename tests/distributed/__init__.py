"""The processes of distributed mode on real servers, under attack."""
