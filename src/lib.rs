//! One attribute on a function, and it runs on one instance at a time across every server.
