"""`manage.py demo`: what happens (`play`), what that would cost otherwise (`gas`), what came of it (`facts`), how it looks."""
