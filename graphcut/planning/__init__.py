"""The strategies behind graphcut.planning.make_plan."""
