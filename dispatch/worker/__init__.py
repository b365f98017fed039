"""One delivery in a worker: from the broker through a child to its acknowledgement."""
