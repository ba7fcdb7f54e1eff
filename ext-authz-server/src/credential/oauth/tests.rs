//! Grants against a token endpoint that answers as told.
