"""The sandbox: runs model-written programs against tests where they can do no harm."""
