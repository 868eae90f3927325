"""What every room stands on: addresses and their policy, the machine interface, errors, limits, secrets."""
