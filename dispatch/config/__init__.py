"""Settings, API keys and URLs, checked when a process starts."""
