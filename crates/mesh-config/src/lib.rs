//! p2pmesh.toml into valid types, errors with line and key (level 3)
