"""The way from two descriptions to valid pairs: gathering, checks, plans for hard NATs, restarts."""
