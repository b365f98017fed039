"""Scripts that measure and document the tree; no product code imports them."""
