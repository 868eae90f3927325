"""Ways through hard NATs beside the plain checks of ICE: plans of when to send what, and how much of it."""
