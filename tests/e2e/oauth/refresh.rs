//! Refresh tokens (RFC 6749, 6).
