"""The commands that ask the market: a few lines each, over `SyncClient`. How they speak and end is in `run`."""
