"""Streams that outlive any one link."""
