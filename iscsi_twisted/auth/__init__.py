"""Who is who: authentication methods, as far as they are no I/O."""
