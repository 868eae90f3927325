"""A NAT laboratory: a virtual-time internet and kernel namespaces."""
