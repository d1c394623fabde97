"""The job that fits re-rankers to what indexes retrieve."""
