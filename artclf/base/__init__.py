"""What every room stands on: files, progress, processes, this machine."""
