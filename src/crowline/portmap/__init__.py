"""Ports that the gateway opens when it is asked: NAT-PMP (RFC 6886), PCP (RFC 6887), UPnP; client side."""
