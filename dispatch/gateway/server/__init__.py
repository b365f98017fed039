"""How requests come in: connections, deadlines, what is read of them and how they end; gunicorn's worker is here."""
