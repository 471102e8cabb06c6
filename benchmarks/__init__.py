"""batchmill beside the script a user would write: `make bench`, see `__main__.py`."""
