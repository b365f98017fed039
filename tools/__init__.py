"""Generators of docs and of the Postman collection; no product code."""
