"""Files that outlive kills and full disks: run folders, the stage cache, and how a run is stopped."""
