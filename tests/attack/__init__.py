"""What a stranger can send: by name (`test_framing`, `test_fields`), and by chance (`test_storm`)."""
