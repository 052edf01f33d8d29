"""The commands, a module for each kind. `artclf.cli` puts them together."""
