"""HTTP without task logic: headers, bodies, problems, authentication, the access log."""
