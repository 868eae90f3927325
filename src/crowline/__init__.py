"""Direct connections between two machines, through the NATs and firewalls between them."""
