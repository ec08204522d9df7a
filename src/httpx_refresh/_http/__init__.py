"""Requests to the API and its responses: httpx and httpx2, origins, bodies, challenges. It knows no token store."""
