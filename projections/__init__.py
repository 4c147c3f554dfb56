"""What is read: views of the log, and the engine that keeps, rebuilds and compares them."""
