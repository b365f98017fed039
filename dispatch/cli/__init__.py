"""Commands: ``celery -A celery_app dlq | queues | topology`` and ``dispatch keys``."""
