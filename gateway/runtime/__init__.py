"""Assembles the layers into one process and keeps it running: supervision, signals, systemd, logging."""
