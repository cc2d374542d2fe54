"""The market's nouns, one module each; every verb is a request and the answer it is read into. No I/O."""
