//! `keyward doctor` finds what keeps a server from working, and says what to do.
