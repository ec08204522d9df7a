"""The wire to an authorization server: token requests, client authentication, answers, logins."""
