"""The operators' console at ``/ops``: one view module and one template a page; `console` puts them together.

The console has no logic and no rights of its own: a page calls what the HTTP API's operation of the same purpose calls, and needs
that operation's scope; an act is recorded in the audit log under that operation's name.
"""
