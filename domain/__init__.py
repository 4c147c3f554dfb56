"""The rules of Tollhouse: pure functions and plain values. No I/O, no clock, no environment."""
