"""What is asked of the views: the questions, the ports that answer them, and what is computed from the answers."""
