//! To be filled by its first user.
