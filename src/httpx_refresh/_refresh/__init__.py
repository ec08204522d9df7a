"""The protocol: who waits, who spends the refresh token, and what the store says about it."""
