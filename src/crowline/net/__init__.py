"""The only place with sockets, clocks, threads, files and DNS."""
