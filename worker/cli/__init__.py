"""The commands of `batchmill`: thin, and lazy about what they import."""
