"""Files that attack, made by mutation and put through the command line (``make fuzz``)."""
