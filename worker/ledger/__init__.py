"""The truth of batchmill, in Redis: Python decides, Lua commits."""
