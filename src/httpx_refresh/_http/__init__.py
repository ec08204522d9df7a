"""What is said to and read from the API: httpx and httpx2, origins, bodies, challenges. It knows no token store."""
