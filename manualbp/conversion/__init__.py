"""Models that are not written for manualbp: their layers, their calls, their graphs."""
