"""What stands between this machine and a run: facts gathered first, then judged by pure checks."""
