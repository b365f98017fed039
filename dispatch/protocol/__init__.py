"""The protocol: record, message, ids, names on the wire, decisions. Pure: no framework, no I/O."""
