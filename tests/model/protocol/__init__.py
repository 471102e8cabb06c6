"""An explicit-state model of the submission and delivery protocol as `worker/` implements it; see docs/model.md."""
