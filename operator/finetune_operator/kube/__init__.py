"""The API server as the operator reaches it: credentials, requests, kinds, errors, and the lease that fences writes."""
