"""UPnP Internet Gateway Devices, versions 1 and 2: finding them, reading them, asking them for ports."""
