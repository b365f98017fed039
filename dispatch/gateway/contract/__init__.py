"""The HTTP contract: models and the OpenAPI document."""
