"""HTTP, without a word about tasks: headers, bodies, problems, authentication, the access log."""
