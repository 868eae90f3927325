"""What networks allow: examinations of one machine, and of two together."""
