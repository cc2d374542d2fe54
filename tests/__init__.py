"""The tests are one package, so that tests/escrow and tests/marketplace do not stand in for the real ones."""
