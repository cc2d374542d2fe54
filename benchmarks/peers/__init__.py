"""What others have built, measured beside us in the same run. Their packages live in `.venv-peers`, never in ours."""
