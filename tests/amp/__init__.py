"""Mixed precision: autocast, the classes of ops, GradScaler."""
