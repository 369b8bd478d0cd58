"""What kickwatch sees: IPIs by reason and origin, slab_mutex waits, kmem accounting."""
