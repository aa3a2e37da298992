"""One file a revision. They stand by themselves: a later change of `storage.tables` must not change the past."""
