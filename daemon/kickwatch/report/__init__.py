"""What people read: tables and JSON made from trial records."""
