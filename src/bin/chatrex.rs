//! The `chatrex` program.
fn main() {}
