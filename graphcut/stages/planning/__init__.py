"""The strategies behind graphcut.stages.plan."""
