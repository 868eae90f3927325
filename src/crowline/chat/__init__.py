"""What two people who write to each other say on the wire, and what each side knows of it."""
