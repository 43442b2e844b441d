"""Kills in the middle of writing, and machines that lack something (``make crash``)."""
