"""What is measured, on the real stack, beside floors taken in the same run. Nothing here asserts a time."""
