"""Raw rows to training sets: one file a source, one file a filter, `prepare` in order."""
