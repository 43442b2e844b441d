"""Targets for Atheris (and OSS-Fuzz): the readers that are Python alone, one function for each."""
