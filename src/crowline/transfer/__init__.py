"""What moves: offer, manifest, chunks, verification. Not how."""
