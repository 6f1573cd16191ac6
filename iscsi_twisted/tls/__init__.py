"""TLS beneath iSCSI, both roles: keys and certificates, and why a handshake failed.  Needs pyOpenSSL."""
