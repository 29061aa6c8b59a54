"""What is inside this backward pass: in numbers, and in pictures."""
