//! Weight files: manifest, checked reading, exact lookup by name.
