"""Ports that routers open: for meetings, for applications, and for a command that ends."""
