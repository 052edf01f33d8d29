"""The steps on a cluster: how their functions are laid out over its workers. The command line alone
uses it.
"""
